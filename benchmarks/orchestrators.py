"""The same flow on Normloom and on other orchestrators: what a build, a rebuild, an edit, a crash and a bad row cost.

Five steps (read, classify, generate four candidates, judge, select the best) are functions that all systems share and
that answer instantly, so only the system's own cost is measured. Each runs in its own folder and environment:

    for peer in dagster prefect hamilton dvc; do python -m venv DIR/$peer; done
    DIR/dagster/bin/pip install dagster polars pyarrow
    DIR/prefect/bin/pip install "prefect>=3.7.3,<4" "fastapi<0.151" polars pyarrow
    DIR/hamilton/bin/pip install sf-hamilton polars pyarrow
    DIR/dvc/bin/pip install dvc polars pyarrow
    python benchmarks/orchestrators.py --environments DIR

A peer without an environment is skipped. `normloom` is a build as the command line makes it, with its Prefect server;
`runner` is the same stages without Prefect; `plain` is the functions alone. Normloom's tables have no checks here,
because no peer's do. Wall and CPU seconds count a whole process, its imports, and everything it starts and waits for.
The steps log every row they work on, so `rows` are counted the same way everywhere, and the last table of each build
is compared with that of `plain`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import psutil
from common import Report, parser

PACKAGE = Path(__file__).parent / "peers" / "orchestrated"
ROOT = Path(__file__).parent.parent
OURS = ("plain", "runner", "normloom")
PEERS = ("dagster", "prefect", "hamilton", "dvc")
CANDIDATES = 4
WORK = 2 + 2 * CANDIDATES  # rows that the steps work on for each prompt
BAD_ROWS = 3
THRESHOLDS = (0.5, 0.6)
HELPER = ("digest[:4]", "digest[4:]")  # the edit of the function that the judge calls
BUILDS = ("cold", "nothing", "threshold", "helper", "resume")
# What Python compiles is kept, in every environment: pip compiles what it installs, where an editable install does not.
COMPILING = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
QUIET = {
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "HAMILTON_TELEMETRY_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # 20 are too few where the machine is busy
}


@dataclass(frozen=True)
class Run:
    """One build: what it took, how many rows its steps worked on, what it made or the last line of its error."""

    system: str
    build: str
    wall: float
    cpu: float
    peak_mb: float
    code: int
    rows: int
    aside: int
    error: str
    table: pl.DataFrame | None


class Folder:
    """A system's working folder: prompts, settings and its copy of the steps."""

    def __init__(self, path: Path, system: str, python: str, *, prompts: int, chunk: int, bad: bool = False) -> None:
        self.path, self.system, self.python, self.chunk = path, system, python, chunk
        path.mkdir(parents=True)
        shutil.copytree(PACKAGE, path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        texts = [f"prompt {number} asks how one lives well" for number in range(prompts)]
        for place in range(BAD_ROWS if bad else 0):
            texts[(2 * place + 1) * prompts // (2 * BAD_ROWS)] += " with poison"
        pl.DataFrame({"prompt": texts}).write_parquet(path / "prompts.parquet")
        self.set_threshold(THRESHOLDS[0])

    def set_threshold(self, value: float) -> None:
        """Write the settings."""
        (self.path / "settings.json").write_text(json.dumps({"threshold": value, "chunk": self.chunk}))

    def edit_helper(self) -> None:
        """Change what the function that the judge calls computes."""
        path = self.path / PACKAGE.name / "scores.py"
        before, after = HELPER
        text = path.read_text()
        if before not in text:
            raise SystemExit(f"{path} has no {before!r} to edit")
        path.write_text(text.replace(before, after))

    def build(self, name: str, *, die_at: int = 0) -> Run:
        """Build in a process of its own, which may be made to die after a number of rows."""
        before = self._rows()
        paths = os.pathsep.join([str(self.path), *([str(ROOT)] if self.system in OURS else [])])
        own = {"PYTHONPATH": paths, "PREFECT_HOME": str(self.path / "prefect"), "ORCHESTRATED_DIE_AT": str(die_at)}
        started = time.perf_counter()
        with (self.path / "out").open("w+b") as out, (self.path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [self.python, "-m", PACKAGE.name, self.system],
                cwd=self.path,
                env={**COMPILING, **QUIET, **own},
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            told = out.read().decode().splitlines()
        self._end_what_is_left()
        built = json.loads(told[-1]) if process.returncode == 0 else {"files": [], "aside": 0}
        table = pl.concat([pl.read_parquet(self.path / file) for file in built["files"]]) if built["files"] else None
        return Run(
            system=self.system,
            build=name,
            wall=wall,
            cpu=usage.ru_utime + usage.ru_stime,
            peak_mb=usage.ru_maxrss / 1024,
            code=process.returncode,
            rows=self._rows() - before,
            aside=built["aside"],
            error=(self.path / f"{name}.log").read_text().strip().rpartition("\n")[2] if process.returncode > 0 else "",
            table=None if table is None else table.select("prompt", "response", "score").sort("prompt"),
        )

    def _rows(self) -> int:
        journal = self.path / "journal.txt"
        return sum(int(line.split()[1]) for line in journal.read_text().splitlines()) if journal.exists() else 0

    def _end_what_is_left(self) -> None:
        """Kill what a killed build left behind, such as the server that Prefect starts for a flow."""
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.path):
                    process.kill()
            except psutil.Error:
                continue


def runs_of(system: str, python: str, folder: Path, *, prompts: int, chunk: int) -> list[Run]:
    """Return a system's builds: cold, again, after two edits, killed half-way, resumed, and with bad rows."""

    def new(name: str, *, bad: bool = False) -> Folder:
        return Folder(folder / system / name, system, python, prompts=prompts, chunk=chunk, bad=bad)

    edited = new("edited")
    runs = [edited.build("cold"), edited.build("nothing")]
    edited.set_threshold(THRESHOLDS[1])
    runs.append(edited.build("threshold"))
    edited.edit_helper()
    runs.append(edited.build("helper"))
    killed = new("killed")
    runs += [killed.build("killed", die_at=prompts * WORK // 2), killed.build("resume")]
    return [*runs, new("bad", bad=True).build("bad rows")]


def tell(report: Report, runs: list[Run], prompts: int) -> None:
    """Add the tables: what builds take, what is noticed, what a crash and bad rows cost."""
    by = {(run.system, run.build): run for run in runs}
    systems = list(dict.fromkeys(run.system for run in runs))
    for unit in ("cpu", "wall"):
        seconds = [{"system": name, **{build: getattr(by[name, build], unit) for build in BUILDS}} for name in systems]
        ours = next(row for row in seconds if row["system"] == "normloom")
        report.add(f"{unit} seconds", seconds)
        ratios = [{name: row[name] / ours[name] if name in BUILDS else row[name] for name in row} for row in seconds]
        report.add(f"{unit} seconds over Normloom's", ratios)

    def made(name: str, build: str) -> str:
        table = by[name, build].table
        return "failed" if table is None else "right" if table.equals(by["plain", build].table) else "WRONG"

    def noticed(name: str, build: str) -> str:
        return f"{by[name, build].rows:,}, {made(name, build)}"

    worked = [{"system": name, **{build: noticed(name, build) for build in BUILDS[:-1]}} for name in systems]
    report.add("Rows worked on, and whether the table is right", worked)
    after_kill = []
    for name in systems:
        cold, killed, resumed = (by[name, build] for build in ("cold", "killed", "resume"))
        whole = cold.code == resumed.code == 0
        after_kill.append(
            {
                "system": name,
                "before": killed.rows,
                "after": resumed.rows,
                "redone": killed.rows + resumed.rows - cold.rows if whole else None,
                "table": made(name, "resume"),
            }
        )
    report.add("Rows worked on before and after kill -9", after_kill)
    bad = [
        {
            "system": name,
            "ended well": "yes" if run.code == 0 else "no",
            "released": 0 if run.table is None else run.table.height,
            "quarantined with reason": run.aside,
            "rows worked on": run.rows,
        }
        for name in systems
        for run in [by[name, "bad rows"]]
    ]
    report.add(f"{BAD_ROWS} of {prompts:,} prompts make a step raise", bad)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.formatter_class = RawDescriptionHelpFormatter
    arguments.add_argument("--environments", type=Path, default=Path(), help="a folder with one environment per peer")
    arguments.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="the peers")
    arguments.add_argument("--prompts", type=int, default=20_000)
    arguments.add_argument("--chunk", type=int, default=1000, help="prompts of a part, partition or mapped task")
    arguments.add_argument("--keep", type=Path, help="keep the builds in this folder")
    given = arguments.parse_args()
    report = Report(given.json)
    pythons = {name: str((given.environments / name / "bin" / "python").absolute()) for name in given.only}
    pythons = dict.fromkeys(OURS, sys.executable) | {
        name: path for name, path in pythons.items() if Path(path).exists()
    }
    runs: list[Run] = []
    with TemporaryDirectory(prefix="normloom-orchestrators-") as temporary:
        for name, python in pythons.items():
            report.note(name)
            runs += runs_of(name, python, given.keep or Path(temporary), prompts=given.prompts, chunk=given.chunk)
    tell(report, runs, given.prompts)
    report.tables["runs"] = [{name: value for name, value in asdict(run).items() if name != "table"} for run in runs]
    report.end()


if __name__ == "__main__":
    main()

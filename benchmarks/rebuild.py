"""The platform's own cost at the paper's size: all of SaVaCu with models that answer instantly.

The scripted models accept and reject as real ones do (about a third of the candidates are aligned, a third are not,
the rest are discarded), so every stage has real work: labels, expansion, duplicates, rejection sampling in three
rounds, split, release, checks, keys, lineage. Measured are rows per second by stage, memory by kind of process and the
size of the store. Then the same command runs again (nothing to do), then with another template late in the flow, and
in a new store it is killed half-way and started again. `--rows` is the maximum number of released responses: eight per
prompt (an aligned and a misaligned one from each of four generators). With several sizes, `growth` is the time per row
over that of the size before. `--only-full` leaves it at the builds from nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import polars as pl
import psutil
import yaml
from common import Report, builtin_prompts, parser

from normloom.schemas.taxonomy import BUILTIN as TAXONOMIES
from normloom.schemas.taxonomy import DIMENSIONS, load_taxonomy
from normloom.schemas.template import FOLDER as TEMPLATES

RESPONSES = 8  # of a prompt: four generators, two alignments
NEAR_COPIES = 0.05  # of the prompts; the paper discards 5.4 %
EXPANSION = 0.2  # of the prompts that are labelled in the end
CHANGED = "diagnose.txt"
ROOT = Path(__file__).parent.parent


def write_prompts(path: Path, count: int, *, seed: int = 7) -> None:
    """Write prompts made of the built-in ones' words, as frequent as there, some of them near copies of others."""
    random = np.random.default_rng(seed)
    words, counts = np.unique(" ".join(builtin_prompts(160)).split(), return_counts=True)
    fresh = count - round(NEAR_COPIES * count)
    texts = [" ".join(random.choice(words, size, p=counts / counts.sum())) for size in random.integers(8, 25, fresh)]
    for copied in random.integers(0, fresh, count - fresh):
        texts.append(f"{texts[copied]} {random.choice(words)}")
    pl.DataFrame({"prompt": texts}).write_parquet(path)


def write_profile(path: Path, prompts: int, actors: int, *, part_rows: int = 4096) -> None:
    """Write a profile of scripted models under the paper's settings; every label is expanded by as many prompts."""
    labels = sum(len(load_taxonomy(TAXONOMIES / f"{name}.csv").labels) for name in DIMENSIONS)

    def scripted(name: str, **options: Any) -> dict[str, Any]:
        return {"engine": "scripted", "model": name, "options": options}

    settings = {
        "models": {
            "embedder": scripted("embedder", dimensions=384),
            "classifier": scripted("classifier"),
            "expander": scripted("expander", words=12),
            "judge": scripted("judge", yes_rate=0.75, words=12),
            "generators": {f"g{number}": scripted(f"g{number}") for number in range(1, RESPONSES // 2 + 1)},
        },
        "classify": {"route": "embedding", "part_rows": part_rows},
        "expand": {"minimum": prompts, "quota": max(round(EXPANSION * prompts / labels), 1)},
        "generate": {"part_rows": part_rows // 2},
        "judge": {"part_rows": part_rows},
    }
    path.write_text(yaml.safe_dump({"resources": {"actors": actors, "threads": 1}, "systems": {"savacu": settings}}))


@dataclass
class Peaks:
    """The most memory that processes of a build held, by kind, in MB (resident, what is shared counted in each).

    `used` are the CPU seconds of each process when it was last looked at.
    """

    held: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    together: float = 0.0
    used: dict[int, float] = field(default_factory=dict)

    def look(self, process: psutil.Popen) -> None:
        """Look at a build's processes once."""
        total = 0.0
        for one in [process, *process.children(recursive=True)]:
            try:
                kind, megabytes = _kind(one, flow=process.pid), one.memory_info().rss / 1e6
                self.used[one.pid] = sum(one.cpu_times()[:2])
            except psutil.Error:
                continue
            total += megabytes
            self.held[kind][one.pid] = max(self.held[kind].get(one.pid, 0.0), megabytes)
        self.together = max(self.together, total)

    def by_kind(self) -> dict[str, float]:
        """Return the largest process of each kind."""
        return {kind: max(sizes.values()) for kind, sizes in sorted(self.held.items())}


def _kind(process: psutil.Process, *, flow: int) -> str:
    if process.pid == flow:
        return "flow"
    line = " ".join(process.cmdline())
    if "normloom.prefect.server" in line:
        return "prefect"
    return "actor" if line.startswith("ray::ModelActor") else "ray"


@contextmanager
def watched(process: psutil.Popen) -> Iterator[Peaks]:
    """Look at a build's processes every half second."""
    peaks, ended = Peaks(), threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            try:
                peaks.look(process)
            except psutil.Error:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


@dataclass(frozen=True)
class Run:
    """One build: its report, what it took and held."""

    report: dict[str, Any]
    seconds: float
    peaks: Peaks

    @property
    def made(self) -> list[dict[str, Any]]:
        """The stages whose tables this build made."""
        return [stage for stage in self.report["stages"] if not stage["reused"]]


@dataclass(frozen=True)
class Bench:
    """One size in a folder of its own."""

    folder: Path
    prompts: int
    actors: int

    def prepare(self) -> None:
        """Write the source and the profile."""
        write_prompts(self.folder / "prompts.parquet", round((1 - EXPANSION) * self.prompts))
        write_profile(self.folder / "profile.yaml", self.prompts, self.actors)

    def start(self, store: str, *settings: str) -> psutil.Popen:
        """Start a build as a user does."""
        command = [sys.executable, "-m", "normloom", "build", "savacu", "--json", "--store", str(self.folder / store)]
        command += ["--profile", str(self.folder / "profile.yaml"), "--source", str(self.folder / "prompts.parquet")]
        given = [part for setting in settings for part in ("--set", setting)]
        home = {"PREFECT_HOME": str(self.folder / "prefect"), "PYTHONPATH": str(ROOT)}
        log = (self.folder / "builds.log").open("ab")
        return psutil.Popen(
            [*command, *given], env={**os.environ, **home}, stdout=subprocess.PIPE, stderr=log, cwd=self.folder
        )

    def build(self, store: str, *settings: str) -> Run:
        """Build and wait."""
        started = time.perf_counter()
        process = self.start(store, *settings)
        with watched(process) as peaks:
            out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a build failed: see {self.folder / 'builds.log'}")
        return Run(json.loads(out), time.perf_counter() - started, peaks)

    def parts(self, store: str) -> set[Path]:
        """Return the marks of the parts that are done."""
        return set((self.folder / store).glob("savacu/*/*/part-*.json"))

    def killed(self, store: str, after: int) -> set[Path]:
        """Start a build, kill its flow after a number of parts and return the marks of those that were."""
        process = self.start(store)
        while process.poll() is None and len(self.parts(store)) < after:
            time.sleep(0.1)
        others = process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(others, timeout=60)  # they see to it themselves that they end
        return self.parts(store)

    def size(self, store: str) -> float:
        """Return a store's size in MB."""
        return sum(path.stat().st_size for path in (self.folder / store).rglob("*") if path.is_file()) / 1e6


def other_templates(folder: Path) -> Path:
    """Copy the templates with another wording of the diagnosis, the last one that a round needs."""
    copy = folder / "templates"
    shutil.copytree(TEMPLATES, copy)
    changed = copy / CHANGED
    changed.write_text(changed.read_text().replace("Diagnosis:", "Short diagnosis:"))
    return copy


def stage_rows(run: Run, before: dict[str, float]) -> list[dict[str, Any]]:
    """Return a table of the stages; `before` has the seconds a row of a smaller size."""
    rows = []
    for stage in run.report["stages"]:
        handled = max(stage["rows_in"], stage["attempts"])
        cost = stage["seconds"] / max(handled, 1)
        rows.append(
            {
                "stage": stage["name"],
                "in": stage["rows_in"],
                "out": stage["rows_out"],
                "dropped": stage["dropped"],
                "seconds": stage["seconds"],
                "rows/s": handled / max(stage["seconds"], 1e-3),
                "share": stage["seconds"] / max(run.seconds, 1e-3),
                "growth": cost / before[stage["name"]] if before.get(stage["name"]) else None,
            }
        )
    return rows


def again(bench: Bench) -> dict[str, Any]:
    """Build a full store again, then with another template, and resume a build killed half-way in a second store."""
    half = len(bench.parts("store")) // 2
    nothing = bench.build("store")
    changed = bench.build("store", f"templates={other_templates(bench.folder)}")
    done = {path: path.stat().st_mtime_ns for path in bench.killed("second", half)}
    resumed = bench.build("second")
    return {
        "no-op s": nothing.seconds,
        "template s": changed.seconds,
        "template stages": len(changed.made),
        "resumed s": resumed.seconds,
        "parts done": len(done),
        "of them redone": sum(path.stat().st_mtime_ns != when for path, when in done.items()),
    }


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--rows", type=int, nargs="+", default=[38_242], help="responses of each size, smallest first"
    )
    arguments.add_argument("--actors", type=int, default=2)
    arguments.add_argument("--keep", action="store_true", help="keep the folder with stores and logs")
    arguments.add_argument("--only-full", action="store_true", help="only build from nothing, once for each size")
    given = arguments.parse_args()
    report = Report(given.json)
    summary: list[dict[str, Any]] = []
    before: dict[str, float] = {}
    for rows in given.rows:
        folder = Path(mkdtemp(prefix="normloom-rebuild-"))
        bench = Bench(folder, prompts=max(rows // RESPONSES, 1), actors=given.actors)
        report.note(f"{rows:,} responses, {bench.prompts:,} prompts, in {folder}")
        bench.prepare()
        full = bench.build("store")
        table = stage_rows(full, before)
        before = {row["stage"]: 1 / row["rows/s"] for row in table}
        report.add(f"Stages at {rows:,} responses", table)
        report.add(f"Largest process of each kind at {rows:,} responses, MB", [full.peaks.by_kind()])
        built = {
            "responses": rows,
            "released": next(stage["rows_out"] for stage in full.report["stages"] if stage["name"] == "publish"),
            "full s": full.seconds,
            "full CPU s": sum(full.peaks.used.values()),
            "store MB": bench.size("store"),
            "all processes MB": full.peaks.together,
        }
        summary.append(built if given.only_full else built | again(bench))
        if not given.keep:
            shutil.rmtree(folder)
    report.add("Builds", summary)
    report.end()


if __name__ == "__main__":
    main()

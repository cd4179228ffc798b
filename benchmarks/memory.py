"""How each stage of SaVaCu scales: peak memory and CPU seconds per row as its table grows.

All of SaVaCu with models that answer instantly (benchmarks/rebuild.py), in one process per size, one stage after
another, so that both figures are the stage's own: `held` is resident memory when the stage began, `peak` the most
during the stage (both in MB), `growth` the CPU seconds per row over those of the size before. The process holds the
scripted models too. Start-up is not included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
from common import Report, parser
from incremental import Source
from rebuild import EXPANSION, RESPONSES, write_profile, write_prompts

from normloom.core.progress import LogProgress
from normloom.run.runner import StageRunner
from normloom.steps.graph import model_uses
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def peak() -> float:
    """Return the most memory that this process has held since `forget_peak`, in MB."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Begin to look for the most memory that is held again."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(folder: Path) -> list[dict[str, Any]]:
    """Make all tables in this process and return what each took and held."""
    source, store = Source(folder), Store(folder / "store")
    stages = source.stages(store)
    pool = Pool(Resources(actors=0), model_uses(stages))
    runner = StageRunner(system="savacu", store=store, pool=pool, build="memory", progress=LogProgress())
    process, made, measured = psutil.Process(), {}, []
    for stage in stages:
        held = process.memory_info().rss / 2**20
        forget_peak()
        started = time.process_time()
        inputs, sides = ([made[one.name].ref for one in group] for group in (stage.inputs, stage.side_inputs))
        manifest, _ = runner.run(stage, inputs, sides)
        made[stage.name] = manifest
        measured.append(
            {
                "stage": stage.name,
                "in": manifest.rows_in,
                "out": manifest.count("rows"),
                "attempts": manifest.attempts,
                "cpu s": time.process_time() - started,
                "held": held,
                "peak": peak(),
            }
        )
    pool.close()
    return measured


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--rows", type=int, nargs="+", default=[38_242, 114_726], help="responses of each size, smallest first"
    )
    arguments.add_argument("--keep", action="store_true", help="keep the folders with the stores")
    arguments.add_argument("--folder", type=Path, help="measure in this process, with the source in this folder")
    given = arguments.parse_args()
    if given.folder:
        print(json.dumps(measure(given.folder)))
        return
    report, before = Report(given.json), {}
    for rows in given.rows:
        folder = Path(mkdtemp(prefix="normloom-memory-"))
        prompts = max(rows // RESPONSES, 1)
        write_prompts(folder / "prompts.parquet", round((1 - EXPANSION) * prompts))
        write_profile(folder / "profile.yaml", prompts, actors=0)
        report.note(f"{rows:,} responses, {prompts:,} prompts, in {folder}")
        out = subprocess.run([sys.executable, __file__, "--folder", str(folder)], stdout=subprocess.PIPE, check=True)
        table = json.loads(out.stdout)
        for row in table:
            cost = row["cpu s"] / max(row["in"], row["attempts"], 1)
            row["growth"] = cost / before[row["stage"]] if row["stage"] in before else None
            before[row["stage"]] = cost
        report.add(f"Stages at {rows:,} responses", table)
        if not given.keep:
            shutil.rmtree(folder)
    report.end()


if __name__ == "__main__":
    main()

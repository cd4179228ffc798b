"""Take back one released row at the paper's size: what it reaches, what is rebuilt, and what a purge and a scan cost.

SaVaCu with models that answer instantly (benchmarks/rebuild.py): a full build, `normloom forget` of one released row,
the same build again, `normloom forget --purge`. A part is the unit of work and of reuse; stages without parts need
all their rows and are rebuilt whole.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from common import Report, parser
from rebuild import RESPONSES, ROOT, Bench, Run

from normloom.store.store import Store


def forget(store: Path, *arguments: str) -> tuple[dict[str, Any], float]:
    """Run the command and return what it printed and the seconds it took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "normloom", "forget", *arguments, "--yes", "--json", "--store", str(store)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout), time.perf_counter() - started


def parts_of(run: Run, store: Store) -> list[dict[str, Any]]:
    """Return for each stage of a build how many of its parts were made then."""
    reused = {stage["name"] for stage in run.report["stages"] if stage["reused"]}
    rows = []
    for table in store.newest("savacu"):
        made = table.work.parts if table.work and table.stage not in reused else 0
        seconds = 0.0 if table.stage in reused else table.seconds
        rows.append({"stage": table.stage, "parts": len(table.parts), "made again": made, "seconds": seconds})
    return rows


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=38_242, help="most responses released")
    arguments.add_argument("--part-rows", type=int, default=128)
    arguments.add_argument("--actors", type=int, default=2)
    arguments.add_argument("--keep", action="store_true", help="keep the folder with the store")
    given = arguments.parse_args()
    report = Report(given.json)
    folder = Path(mkdtemp(prefix="normloom-forget-"))
    bench = Bench(folder, prompts=max(given.rows // RESPONSES, 1), actors=given.actors)
    report.note(f"{given.rows:,} responses, {bench.prompts:,} prompts, parts of {given.part_rows} rows, in {folder}")
    bench.prepare()
    settings = [f"{stage}.part_rows={given.part_rows}" for stage in ("classify", "generate", "judge")]
    full = bench.build("store", *settings)
    store = Store(folder / "store")
    released = store.current("savacu", "publish")
    if released is None:
        raise SystemExit("the build released nothing")
    row = store.scan(released.ref).select("row_id").head(1).collect().item()
    asked, asking = forget(store.root, row, "--reason", "measured")
    again = bench.build("store", *settings)
    stages = parts_of(again, store)
    purged, purging = forget(store.root, "--purge")
    report.add("Stages of the build after", stages)
    report.add(
        "One released row taken back",
        [
            {
                "full build s": full.seconds,
                "forget s": asking,
                "rows reached": asked["reached"],
                "tables that hold them": len(asked["tables"]),
                "build after s": again.seconds,
                "parts": sum(stage["parts"] for stage in stages),
                "made again": sum(stage["made again"] for stage in stages),
                "purge s": purging,
                "removed": len(purged["removed"]),
                "files scanned": purged["files"],
                "found": len(purged["found"]),
            }
        ],
    )
    report.end()
    if not given.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""What it costs to read, trace and check a table of ten million rows whose parents are another ten million.

The store is written as any build writes it: the stage runner makes seeds, forty drafts of each seed and a label for
each draft, in parts, with scripted functions. Then each command runs in a process of its own: `normloom query`,
`normloom trace` back to the seed, forward from a draft and from a seed, and the contract's checks of the whole table,
as they run before it is published. CPU seconds count all threads, start-up and imports included; `peak` is the
process's peak memory. With several sizes in `--rows`, `growth` is the CPU time over that of the size before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from common import Marks, Report, parser
from pydantic import BaseModel, ConfigDict

from normloom.core.contract import Check, Contract
from normloom.core.stage import NoArguments, Output, Stage
from normloom.run.checks.table_checks import run_checks
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.view.catalog import Catalog
from normloom.view.rows import RowsWanted, count, page
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

DRAFTS = 40  # of each seed
PART_ROWS = 100_000  # that a part makes
LABELS = tuple(f"label_{number:02d}" for number in range(14))
SYSTEM = "big"
GOAL_MB = 1500
ROOT = Path(__file__).parent.parent


def check(expectation: str, **arguments: Any) -> Check:
    """Return a check that stops the build."""
    return Check(expectation=expectation, arguments=arguments)


SEEDED = Contract(columns={"seed": pl.Int64()})
DRAFTED = Contract(columns={"seed": pl.Int64(), "draw": pl.Int64(), "text": pl.String()})
LABELLED = Contract(
    columns={"text": pl.String(), "label": pl.String(), "probability": pl.Float64()},
    checks=(
        check("expect_table_row_count_to_be_between", min_value=1),
        check("expect_column_value_lengths_to_be_between", column="text", min_value=1),
        check("expect_column_values_to_be_in_set", column="label", value_set=list(LABELS)),
        check("expect_column_values_to_be_between", column="probability", min_value=0, max_value=1),
        check("expect_column_values_to_not_be_null", column="label"),
        Check(
            expectation="expect_column_values_to_match_regex",
            arguments={"column": "text", "regex": "^draft"},
            on_fail="quarantine",
        ),
    ),
)


class Count(BaseModel):
    """How many rows a source has."""

    model_config = ConfigDict(frozen=True)
    rows: int


def seeds(arguments: Count) -> Output:
    """Return numbered rows without parents."""
    number = pl.int_range(arguments.rows, eager=True)
    parents = pl.lit([], dtype=pl.List(pl.String))
    rows = pl.DataFrame({"seed": number}).with_columns(content=pl.col("seed").cast(pl.String), parents=parents)
    return Output(rows=rows, attempts=rows.height)


def drafts(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # every stage has arguments
    """Return forty drafts of each seed."""
    made = rows.select("row_id", "seed", draw=pl.lit(range(DRAFTS), dtype=pl.List(pl.Int64))).explode("draw")
    made = made.with_columns(text=pl.format("draft {} of what seed {} asks for", "draw", "seed"))
    return Output(rows=made, attempts=made.height)


def labelled(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # as stages are called
    """Label drafts by the digits of their ids; of a hundred one is dropped."""
    digits = pl.col("row_id").str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64)
    made = rows.select(
        "row_id",
        "text",
        label=pl.lit(list(LABELS)).list.get(digits % len(LABELS)),
        probability=digits % 1000 / 1000,
    )
    dropped = made.filter(pl.col("probability") < 0.01).select(
        "row_id",
        reason=pl.lit("unclear"),
        winner=pl.lit(None, dtype=pl.String),
        payload=pl.struct("label", "probability").struct.json_encode(),
    )
    return Output(rows=made.filter(pl.col("probability") >= 0.01), dropped=dropped)


def stages(rows: int) -> list[Stage]:
    """Return the three stages, each reading the one before it."""
    first = Stage(name="seeds", function=seeds, arguments=Count(rows=rows // DRAFTS), contract=SEEDED)
    second = Stage(
        name="drafts",
        function=drafts,
        arguments=NoArguments(),
        contract=DRAFTED,
        inputs=(first,),
        part_rows=PART_ROWS // DRAFTS,
    )
    third = Stage(
        name="labels",
        function=labelled,
        arguments=NoArguments(),
        contract=LABELLED,
        inputs=(second,),
        part_rows=PART_ROWS,
    )
    return [first, second, third]


def write(store: Store, rows: int) -> list[dict[str, Any]]:
    """Build the three tables and return what each took."""
    runner = StageRunner(system=SYSTEM, store=store, pool=Pool(Resources(actors=0)), build="bench", progress=Marks())
    made: list[dict[str, Any]] = []
    inputs: list[Any] = []
    for stage in stages(rows):
        started = time.process_time()
        manifest, _ = runner.run(stage, inputs, [])
        inputs = [manifest.ref]
        cpu = time.process_time() - started
        count = manifest.count("rows")
        megabytes = sum(file.bytes for part in manifest.parts for file in part.stored) / 1e6
        made.append(
            {
                "stage": stage.name,
                "rows": count,
                "parts": len(manifest.parts),
                "cpu s": cpu,
                "rows per cpu s": count / cpu,
                "MB": megabytes,
            }
        )
    return made


def check_again(store: Store) -> list[dict[str, Any]]:
    """Run the checks of the labels over the published table."""
    manifest = store.current(SYSTEM, "labels")
    if manifest is None:
        raise SystemExit("no table to check")
    results, aside = run_checks(store.scan(manifest.ref), LABELLED)
    if aside or not all(result.passed for result in results):
        raise SystemExit(f"the table does not pass: {results}")
    return [result.model_dump() for result in results]


def measured(command: Sequence[str], folder: Path) -> tuple[dict[str, Any], str]:
    """Run a process to its end and return what it took, and what it printed."""
    with (folder / "out").open("w+b") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        text = out.read().decode()
    peak = usage.ru_maxrss / 1024
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall s": wall, "cpu s": cpu, "peak MB": peak, "goal": "yes" if peak <= GOAL_MB else "no"}, text


def looked_at(store: Store) -> list[dict[str, Any]]:
    """Ask for pages of the labels as `normloom view` does, in one process, and return the seconds of each."""
    catalog = Catalog(store)
    table = f"{SYSTEM}_labels"
    some = some_ids(store)["labels"]
    filtered = {"table": table, "where": [{"column": "label", "operator": "is", "value": LABELS[3]}]}
    rare = {"table": table, "where": [{"column": "row_id", "operator": "is", "value": some}]}
    asked = {
        "first page": {"table": table},
        "page at 5,000,000": {"table": table, "offset": 5_000_000},
        "filter, many rows": filtered,
        "filter, one row": rare,
        "sorted by probability": {"table": table, "sort": "probability"},
        "search, two words": {"table": table, "search": "39 seed"},
        "search, no row": {"table": table, "search": "nowhere"},
    }
    found = []
    for name, wanted in asked.items():
        request = RowsWanted.model_validate(wanted)
        started = time.perf_counter()
        rows = len(page(catalog, request)["rows"])
        shown = time.perf_counter() - started
        total = count(catalog, request)
        found.append(
            {
                "page": name,
                "wall s": shown,
                "rows": rows,
                "counted s": time.perf_counter() - started - shown,
                "of": total,
            }
        )
    catalog.close()
    return found


def some_ids(store: Store) -> dict[str, str]:
    """Return a row id from the middle of each table."""
    ids = {}
    for manifest in store.newest(SYSTEM):
        middle = store.scan(manifest.ref).select("row_id").slice(manifest.count("rows") // 2, 1).collect()
        ids[manifest.stage] = middle.item()
    return ids


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", default=[10_000_000], help="drafts, smallest size first")
    arguments.add_argument("--folder", type=Path, help="keep the stores here instead of in a temporary folder")
    arguments.add_argument("--do", choices=["write", "check", "view"], help="one step alone, in this process")
    given = arguments.parse_args()
    if given.do:
        store = Store(given.folder)
        steps = {"write": lambda: write(store, given.rows[0]), "check": lambda: check_again(store)}
        print(json.dumps(steps.get(given.do, lambda: looked_at(store))()))
        return
    report = Report(given.json)
    before: dict[str, float] = {}
    with TemporaryDirectory(prefix="normloom-big-") as temporary:
        for rows in given.rows:
            folder = (given.folder or Path(temporary)) / str(rows)
            folder.mkdir(parents=True, exist_ok=True)
            before = measure(report, rows, folder, before)
    report.end()


def measure(report: Report, rows: int, folder: Path, before: dict[str, float]) -> dict[str, float]:
    """Write a store of one size, do what there is to do with it and return the CPU seconds of each."""
    at = ["--store", str(folder / "store")]
    own = [sys.executable, __file__, "--folder", str(folder / "store"), "--rows", str(rows)]
    command = [sys.executable, "-m", "normloom"]
    report.note(f"{rows:,} rows: writing")
    took, text = measured([*own, "--do", "write"], folder)
    report.add(f"Writing {rows:,} rows", json.loads(text))
    ids = some_ids(Store(folder / "store"))
    counted = f"FROM {SYSTEM}_labels SELECT count(*)"  # names of our own
    grouped = f"FROM {SYSTEM}_labels SELECT label, count(*), avg(probability) GROUP BY ALL ORDER BY ALL"
    steps = {
        "query: count": [*command, "query", counted, *at],
        "query: group by": [*command, "query", grouped, *at],
        "trace back": [*command, "trace", ids["labels"], *at],
        "trace forward, a draft": [*command, "trace", ids["drafts"], "--forward", *at],
        "trace forward, a seed": [*command, "trace", ids["seeds"], "--forward", *at],
        "checks": [*own, "--do", "check"],
        "view, seven pages": [*own, "--do", "view"],
    }
    table = {"write": took}
    for name, step in steps.items():
        report.note(name)
        table[name], text = measured(step, folder)
    report.add("Pages of normloom view", json.loads(text))
    for name, row in table.items():
        row["growth"] = row["cpu s"] / before[name] if name in before else None
    report.add(f"At {rows:,} rows", [{"what": name, **row} for name, row in table.items()])
    return {name: row["cpu s"] for name, row in table.items()}


if __name__ == "__main__":
    main()

"""What checking a table costs with Polars and with Great Expectations over pandas, from one row to ten million.

Five checks (rows, lengths, a set, a range, no nulls) of a Parquet table, each checker in a process of its own: CPU
seconds of all threads with and without start-up and imports, wall seconds, and peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from big_table import LABELS, check, measured
from common import Report, parser

from normloom.core.contract import Contract

PART_ROWS = 100_000
CONTRACT = Contract(
    columns={"text": pl.String(), "label": pl.String(), "probability": pl.Float64()},
    checks=(
        check("expect_table_row_count_to_be_between", min_value=1),
        check("expect_column_value_lengths_to_be_between", column="text", min_value=1),
        check("expect_column_values_to_be_in_set", column="label", value_set=list(LABELS)),
        check("expect_column_values_to_be_between", column="probability", min_value=0, max_value=1),
        check("expect_column_values_to_not_be_null", column="label"),
    ),
)


def write(folder: Path, rows: int) -> None:
    """Write a table in parts, as a stage does."""
    for part, start in enumerate(range(0, rows, PART_ROWS)):
        number = pl.int_range(start, min(start + PART_ROWS, rows), eager=True)
        made = pl.DataFrame({"number": number}).select(
            row_id=pl.format("row {}", "number"),
            text=pl.format("draft {} of what a seed asks for", "number"),
            label=pl.lit(list(LABELS)).list.get(pl.col("number") % len(LABELS)),
            probability=pl.col("number") % 1000 / 1000,
        )
        made.write_parquet(folder / f"{part:05}.parquet")


def run(maker: str, folder: Path) -> dict[str, Any]:
    """Run the checks in this process and return the CPU seconds of the checks alone."""
    table = pl.scan_parquet(sorted(folder.glob("*.parquet")))
    if maker == "polars":
        from normloom.run.checks.table_checks import run_checks

        started = time.process_time()
        passed = [result.passed for result in run_checks(table, CONTRACT)[0]]
    else:
        import great_expectations  # noqa: F401  # its import is counted with the start

        from normloom.run.checks.expectations import expected

        started = time.process_time()
        passed = [outcome.passed for outcome in expected(table, CONTRACT.checks, rows_at_once=1_000_000)]
    if not all(passed):
        raise SystemExit("the table does not pass")
    return {"checks cpu s": time.process_time() - started}


def main() -> None:
    """Measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", default=[1, 100_000, 10_000_000])
    arguments.add_argument("--do", nargs=2, metavar=("CHECKER", "FOLDER"), help="one checker, in this process")
    given = arguments.parse_args()
    if given.do:
        print(json.dumps(run(given.do[0], Path(given.do[1]))))
        return
    report = Report(given.json)
    found: list[dict[str, Any]] = []
    for rows in given.rows:
        with TemporaryDirectory(prefix="normloom-checks-") as temporary, TemporaryDirectory() as scratch:
            write(Path(temporary), rows)
            for maker in ("polars", "great_expectations"):
                took, text = measured([sys.executable, __file__, "--do", maker, temporary], Path(scratch))
                del took["goal"]
                found.append({"rows": rows, "made by": maker, **took, **json.loads(text)})
    report.add("Five checks", found)
    report.end()


if __name__ == "__main__":
    main()

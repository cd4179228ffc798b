"""Checks of a whole table by Great Expectations: those that only it can make."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from normloom.core.contract import Check
from normloom.core.errors import CheckError
from normloom.run.checks.outcome import SAMPLE, Outcome

_importing = threading.Lock()  # stages are checked in several threads

# What these expect of a row does not depend on other rows: they may see a table in slices.
_OF_SINGLE_ROWS = frozenset(
    {
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_null",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
    }
)


def expected(table: pl.LazyFrame, checks: Sequence[Check], *, rows_at_once: int) -> list[Outcome]:
    """Return what each check found.

    Of a table with more than `rows_at_once` rows, checks of single rows see that many at a time; the others are run
    one by one over the columns that they need. Raises CheckError if the library does not know a check, or cannot tell
    which rows to quarantine.
    """
    found = [_Found(check) for check in checks]
    for rows, among in _batches(table, found, rows_at_once):
        outcomes = _validated(rows, [one.check for one in among])
        for one, outcome in zip(among, outcomes, strict=True):
            one.add(outcome, rows)
    return [one.outcome for one in found]


@dataclass(eq=False)
class _Found:
    """What a check found so far; a check of single rows adds up over slices."""

    check: Check
    passed: bool = True
    raised: str | None = None
    rows: int = 0
    unexpected: int = 0
    sample: list[Any] = field(default_factory=list)
    observed: str | None = None
    failing: list[str] = field(default_factory=list)

    def add(self, outcome: dict[str, Any], rows: pl.DataFrame) -> None:
        """Add the outcome over some of the rows; raises CheckError if it cannot tell which rows to quarantine."""
        found, raised = outcome.get("result", {}), _exception(outcome)
        self.raised = self.raised or raised
        passed = bool(outcome["success"]) and raised is None
        self.passed &= passed
        if "unexpected_count" in found:
            self.rows += found["element_count"]
            self.unexpected += found["unexpected_count"]
            self.sample += found.get("partial_unexpected_list", [])[: SAMPLE - len(self.sample)]
        else:
            self.observed = json.dumps(found.get("observed_value"), default=str)
        if not passed and self.check.on_fail == "quarantine":
            if raised:
                raise CheckError(f"check {self.check.name} could not be run: {raised}")
            self.failing += rows["row_id"].gather(found.get("unexpected_index_list") or []).to_list()

    @property
    def outcome(self) -> Outcome:
        return Outcome(**vars(self))


def _batches(
    table: pl.LazyFrame, found: Sequence[_Found], rows_at_once: int
) -> Iterator[tuple[pl.DataFrame, Sequence[_Found]]]:
    """Yield rows, with the columns that some checks look at, and these checks."""
    height = table.select(pl.len()).collect().item()
    if height <= rows_at_once:
        yield _rows(table, found), found
        return
    sliced = [one for one in found if one.check.expectation in _OF_SINGLE_ROWS and "mostly" not in one.check.arguments]
    for start in range(0, height, rows_at_once) if sliced else ():
        yield _rows(table.slice(start, rows_at_once), sliced), sliced
    for one in found:
        if one not in sliced:
            yield _rows(table, [one]), [one]


def _rows(table: pl.LazyFrame, found: Sequence[_Found]) -> pl.DataFrame:
    """Return the columns under test, and row ids if rows may be quarantined."""
    arguments = [item for one in found for item in one.check.arguments.items()]
    wanted = {value for name, value in arguments if name.startswith("column") and isinstance(value, str)}
    if any(one.check.on_fail == "quarantine" for one in found):
        wanted.add("row_id")
    there = pl.repeat(value=True, n=pl.len()).alias("there")  # without a column a frame has no rows
    return table.select(there, *(name for name in table.collect_schema() if name in wanted)).collect()


def _validated(rows: pl.DataFrame, checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the outcome of each check, in one validation: for each Great Expectations hashes all columns it is given.

    It reads pandas; rows that fail are identified by their position.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with _importing:
        import great_expectations as gx  # four seconds

    # This one tells of a temporary directory for every context, at a level that it sets itself.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    looked_at = {value for check in checks for value in check.arguments.values() if isinstance(value, str)}
    frame = rows.select("there", *(name for name in rows.columns if name in looked_at)).to_pandas()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("table").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite("contract", expectations=[_expectation(*numbered) for numbered in enumerate(checks)])
    results = batch.validate(suite, result_format="COMPLETE").to_json_dict()["results"]
    return sorted(results, key=lambda outcome: outcome["expectation_config"]["meta"]["position"])


def _expectation(position: int, check: Check) -> Any:
    import great_expectations.expectations as gxe

    name = "".join(word.capitalize() for word in check.expectation.split("_"))
    kind = getattr(gxe, name, None)
    if kind is None:
        raise CheckError(f"unknown Great Expectations expectation {check.expectation!r}")
    return kind(**check.arguments, meta={"position": position})


def _exception(outcome: dict[str, Any]) -> str | None:
    info = outcome.get("exception_info") or {}
    nested = [info, *(value for value in info.values() if isinstance(value, dict))]
    return next((str(item.get("exception_message")) for item in nested if item.get("raised_exception")), None)

"""The gate before a table publishes: every check of its contract, made by Polars or by Great Expectations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.core.errors import CheckError
from normloom.core.stage import Stage
from normloom.core.table import CheckResult
from normloom.run.checks.columns import looked_at, question
from normloom.run.checks.own import OF_SOURCE, is_own, own_outcome

ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What an earlier table says about a table with the same contract: `rows` of its rows are here, unchanged.

    `results` are those of the earlier table, `new` has the rows that it does not have.
    """

    results: Sequence[CheckResult]
    rows: int
    new: pl.LazyFrame

    def passed(self, place: int, check: Check) -> bool:
        """Return whether the rows passed a check, the one at a place among the contract's."""
        result = self.results[place] if place < len(self.results) else None
        return result is not None and result.passed and result.name == check.name


def run_checks(
    table: pl.LazyFrame,
    contract: Contract,
    *,
    stage: Stage | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
    checked: Checked | None = None,
) -> tuple[list[CheckResult], dict[str, str]]:
    """Run the contract's checks and return their results and the rows to quarantine (row id -> rule).

    A check that raises counts as failed: a gate that cannot look must not open. Common checks are one query over the
    table. Ours look at groups of rows (`own`), or at the source of the `stage` (without one they are left out). The
    others are Great Expectations', which sees `rows_at_once` rows at a time of a larger table if they are about single
    rows; raises CheckError if it does not know one.

    A check about single rows that no row of an earlier table failed is asked of those only that it does not have
    (`checked`): the others would pass again.
    """
    checks = [check for check in contract.checks if stage or check.expectation != OF_SOURCE]
    found = {place: own_outcome(check, table, stage) for place, check in enumerate(checks) if is_own(check)}
    schema = table.collect_schema()
    asked = {place: question(check, schema) for place, check in enumerate(checks) if place not in found}
    ours = {place: one for place, one in asked.items() if one}
    passed = [place for place, one in ours.items() if one.by_row and checked and checked.passed(place, one.check)]
    whole = [place for place in ours if place not in passed]
    found |= dict(zip(whole, looked_at(table, [ours[place] for place in whole]), strict=True))
    if checked:
        of_new = looked_at(checked.new, [ours[place] for place in passed])
        found |= {place: replace(one, rows=one.rows + checked.rows) for place, one in zip(passed, of_new, strict=True)}
    if others := [place for place in asked if place not in ours]:
        from normloom.run.checks.expectations import expected

        left = [checks[place] for place in others]
        found |= dict(zip(others, expected(table, left, rows_at_once=rows_at_once), strict=True))
    outcomes = [found[place] for place in range(len(checks))]
    return [one.result for one in outcomes], {row: one.check.name for one in outcomes for row in one.failing}


def require(results: Sequence[CheckResult], *, stage: str) -> None:
    """Raise CheckError if a check that stops the build failed."""
    failed = [result for result in results if not result.passed and result.on_fail == "stop"]
    if failed:
        found = "; ".join(f"{result.name}: {result.detail}" for result in failed)
        raise CheckError(f"stage {stage!r} is not published, its table fails checks: {found}")

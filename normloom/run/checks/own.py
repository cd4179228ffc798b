"""Checks of our own: training that worked, outputs that differ, weights that vary, figures without chance or aim.

A contract asks for them by name as for any other (`Check(expectation=..., arguments=...)`):

- `expect_training_to_have_worked`: in each group of `by`, in the order of `step`, the digests in the column `weights`
  changed and the loss in `column` fell. `share` of the steps are averaged at each end; null losses are left out.
- `expect_groups_to_differ`: no two groups of `by` have the same values of `column` on all keys of `on` they share.
- `expect_column_to_vary`: in each group of `by` the coefficient of variation of `column` is at least `min_value`
  (default 0.1). Groups whose column `among` is null throughout are left out.
- `expect_metric_to_be_clean`: the source of the stage draws no unseeded random number, and has no cap and no target.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import polars as pl

from normloom.core.contract import Check
from normloom.core.errors import CheckError
from normloom.core.stage import Stage
from normloom.run.checks.outcome import Outcome

OF_SOURCE = "expect_metric_to_be_clean"
LEAST_VARIATION = 0.1  # of a weight: one that varies less is a constant in all but name


class Found(NamedTuple):
    """Whether a check passed, and what it found, in words."""

    passed: bool
    found: str


def worked(  # what training is, by name
    table: pl.LazyFrame,
    *,
    column: str,
    step: str,
    weights: str | None = None,
    by: Sequence[str] = (),
    share: float = 0.0,
) -> Found:
    """Return whether training changed weights and lowered the loss in every group."""
    wanted = list(dict.fromkeys([*by, step, column, *([weights] if weights else [])]))
    rows = table.select(wanted).collect().sort(step)
    changed = fell = 0
    runs = [own for _, own in rows.group_by(by, maintain_order=True)] if by else [rows] if rows.height else []
    for own in runs:
        losses = own[column].drop_nulls()
        few = max(int(losses.len() * share), 1)
        first, last = losses.head(few).sum() / few, losses.tail(few).sum() / few
        fell += losses.len() > 1 and last < first
        changed += weights is None or own[weights][0] != own[weights][-1]
    told = "" if weights is None else f"{changed} changed, "
    return Found(bool(runs) and changed == fell == len(runs), f"{told}{fell} fell, of {len(runs)}")


def differ(table: pl.LazyFrame, *, column: str, by: str, on: Sequence[str]) -> Found:
    """Return whether the values of any two groups differ on a key that both have."""
    rows = table.select(by, *on, value=pl.col(column)).collect()
    groups = {name: own.drop(by) for (name,), own in rows.group_by(by, maintain_order=True)}
    alike = []
    for (one, own), (other, others) in combinations(groups.items(), 2):
        both = own.join(others, on=list(on), suffix="_other", nulls_equal=True)
        if both.height and both.select(pl.col("value").eq_missing(pl.col("value_other")).all()).item():
            alike.append(f"{one} and {other}")
    if len(groups) < 2:  # noqa: PLR2004  # one cannot differ
        return Found(passed=True, found="nothing to compare")
    return Found(not alike, f"the same: {', '.join(alike)}" if alike else f"{len(groups)} groups differ")


def varies(
    table: pl.LazyFrame,
    *,
    column: str,
    min_value: float = LEAST_VARIATION,
    by: Sequence[str] = (),
    among: str | None = None,
) -> Found:
    """Return whether a column varies enough in every group."""
    rows = table.select(list(dict.fromkeys([*by, column, *([among] if among else [])]))).collect()
    groups = list(rows.group_by(by, maintain_order=True)) if by else [((), rows)]
    found = {
        " ".join(map(str, name)): variation(own[column])
        for name, own in groups
        if among is None or own[among].null_count() < own.height
    }
    few = [name for name, value in found.items() if value < min_value]
    told = ", ".join(f"{name} {value:.3f}".strip() for name, value in found.items())
    return Found(not few, f"coefficient of variation {told}" if found else "nothing to look at")


def variation(values: pl.Series) -> float:
    """Return the coefficient of variation: standard deviation (of the population) over mean; 0 without a mean."""
    mean, deviation = values.mean(), values.std(ddof=0)
    return deviation / mean if isinstance(deviation, float) and isinstance(mean, float) and mean else 0.0


OF_TABLES: Mapping[str, Callable[..., Found]] = {
    "expect_training_to_have_worked": worked,
    "expect_groups_to_differ": differ,
    "expect_column_to_vary": varies,
}


def is_own(check: Check) -> bool:
    """Return whether a check is one of these."""
    return check.expectation == OF_SOURCE or check.expectation in OF_TABLES


def own_outcome(check: Check, table: pl.LazyFrame, stage: Stage | None) -> Outcome:
    """Return what one of these checks found. Raises CheckError for arguments that it does not take."""
    if check.on_fail == "quarantine":
        raise CheckError(f"check {check.name} is about groups of rows: on_fail must be stop or warn")
    if check.expectation == OF_SOURCE:
        from normloom.run.checks.source_checks import unclean

        findings = unclean(stage) if stage else []
        return Outcome(check=check, passed=not findings, observed=json.dumps(findings))
    try:
        passed, found = OF_TABLES[check.expectation](table, **check.arguments)
    except (TypeError, pl.exceptions.ColumnNotFoundError) as error:
        raise CheckError(f"check {check.name} cannot be run: {error}") from error
    return Outcome(check=check, passed=passed, observed=json.dumps(found))

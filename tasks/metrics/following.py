"""Whose judgement do answers follow? Agreement with the labels of each group, and the pull between two groups.

The pull towards a group: among answers about items that it and another group label differently, the share that sides
with it; without a pull one half. Intervals resample items, since answers to one item are alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import polars as pl

from normloom.tasks.metrics.clustered import clustered_share
from normloom.tasks.metrics.figure import Figure, figure_row

Row = dict[str, object]


def followed(
    told: pl.DataFrame, *, of: str, item: str, group: str, what: str, reference: str | None = None, by: str = ""
) -> Iterator[Row]:
    """Yield the figures of who gave answers: `agreement` with each group, and the pull.

    `told` has one row for each answer and group that labels its item: the columns `answer` and `label` (0 or 1), and
    those that `item` and `group` name; items are called `what`. With a `reference` the pull is its, against each other
    group (`sides_with_REFERENCE`); without, that of each pair of groups (`sides_with`, the first against the second).
    `by` is what the groups divide people by.
    """
    sliced = {"slice_by": by, "slice": by} if by else {}
    groups = told[group].unique(maintain_order=True).to_list()
    for one in groups:
        same = share_of(told.filter(pl.col(group) == one), pl.col("answer") == pl.col("label"), item, what)
        yield figure_row(same, metric="agreement", of=of, axis=one, **sliced)
    pairs = [(reference, one) for one in groups if one != reference] if reference else list(combinations(groups, 2))
    for one, other in pairs:
        figure = _pull(told, one, other, item, group, what)
        if reference:
            yield figure_row(figure, metric=f"sides_with_{reference}", of=of, axis=other, **sliced)
        else:
            yield figure_row(figure, metric="sides_with", of=of, axis=f"{one}, not {other}", **sliced)


def share_of(rows: pl.DataFrame, holds: pl.Expr, item: str, what: str) -> Figure:
    """Return the share of answers for which an expression holds, with its interval over items."""
    if rows.is_empty():
        return Figure(undefined="no answers")
    return clustered_share(rows, holds, cluster=item, what=what)


def _pull(told: pl.DataFrame, one: str, other: str, item: str, group: str, what: str) -> Figure:
    theirs = told.filter(pl.col(group) == one).select(item, reference="label").unique(item)
    differ = told.filter(pl.col(group) == other).join(theirs, on=item).filter(pl.col("reference") != pl.col("label"))
    return share_of(differ, pl.col("answer") == pl.col("reference"), item, what)

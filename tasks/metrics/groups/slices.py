"""The slices of a table of ratings that figures are given for: all of it, each group of raters, each domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

AXES = ("gender", "race", "age")  # along which people are compared
OVERALL = "overall"
DOMAIN = "domain"
NO_LABEL = "None"  # the slice of conversations without a label


class Slice(NamedTuple):
    """Rows that agree in a column, and the demographic axes whose groups are compared among them."""

    by: str
    name: str
    rows: pl.DataFrame
    axes: tuple[str, ...]


def column_of(axis: str) -> str:
    """Return the column that holds the groups of a demographic axis."""
    return f"rater_{axis}"


def slices(rows: pl.DataFrame, axes: Sequence[str]) -> Iterator[Slice]:
    """Yield all rows, the rows of each group of each axis, and those of each domain in `labels`.

    A conversation of several domains is in the slice of each; one without label (an empty list) is in the slice
    `None`; one whose labels are not known (null) is in none. The groups of an axis are not compared with one another
    inside one of them.
    """
    axes = tuple(axes)
    yield Slice(OVERALL, "all", rows, axes)
    for axis in axes:
        others = tuple(other for other in axes if other != axis)
        for group in sorted(rows[column_of(axis)].drop_nulls().unique()):
            yield Slice(column_of(axis), group, rows.filter(pl.col(column_of(axis)) == group), others)
    if "labels" in rows.columns:
        known = rows.drop_nulls("labels")
        for domain in sorted(known["labels"].list.explode().drop_nulls().unique()):
            yield Slice(DOMAIN, domain, known.filter(pl.col("labels").list.contains(domain)), axes)
        unlabelled = known.filter(pl.col("labels").list.len() == 0)
        if unlabelled.height:
            yield Slice(DOMAIN, NO_LABEL, unlabelled, axes)

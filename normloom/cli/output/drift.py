"""Label drift: the label distributions of a table in two builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from normloom.core.table import TableRef
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class LabelShift:
    """How many rows have a label, before and after, and the change of its share among its dimension's labels."""

    label: str
    before: int
    after: int
    shift: float


@dataclass(frozen=True, kw_only=True)
class DimensionDrift:
    """How the labels of one dimension moved, the largest shifts first.

    `distance` is the total variation distance of the two distributions over labels: 0 if they are equal, 1 if
    no label is in both; None if a side has no labels.
    """

    dimension: str
    before: int
    after: int
    distance: float | None
    labels: Sequence[LabelShift]


def label_drift(before: TableRef, after: TableRef, store: Store) -> list[DimensionDrift]:
    """Return the drift of each dimension, in order of name; empty if a table has no column of labels."""
    tables = [store.scan(ref) for ref in (before, after)]
    if not all(_labelled(table) for table in tables):
        return []
    old, new = (_counts(table) for table in tables)
    both = old.join(new, on=["dimension", "label"], how="full", coalesce=True, suffix="_after").fill_null(0)
    return [
        _dimension(str(name), rows)
        for (name,), rows in both.sort("dimension").group_by("dimension", maintain_order=True)
    ]


def _labelled(table: pl.LazyFrame) -> bool:
    column = table.collect_schema().get("labels")
    if not isinstance(column, pl.List) or not isinstance(column.inner, pl.Struct):
        return False
    return {"dimension", "label"} <= {field.name for field in column.inner.fields}


def _counts(table: pl.LazyFrame) -> pl.DataFrame:
    labels = table.select(pl.col("labels").explode()).drop_nulls().unnest("labels")
    return labels.group_by("dimension", "label").agg(pl.len().cast(pl.Int64).alias("count")).collect()


def _dimension(name: str, rows: pl.DataFrame) -> DimensionDrift:
    before, after = int(rows["count"].sum()), int(rows["count_after"].sum())
    shares = rows.with_columns(
        shift=pl.col("count_after") / max(after, 1) - pl.col("count") / max(before, 1),
    ).sort([-pl.col("shift").abs(), "label"])
    return DimensionDrift(
        dimension=name,
        before=before,
        after=after,
        distance=float(shares["shift"].abs().sum()) / 2 if before and after else None,
        labels=[
            LabelShift(label=row["label"], before=row["count"], after=row["count_after"], shift=row["shift"])
            for row in shares.iter_rows(named=True)
        ],
    )

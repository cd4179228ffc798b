"""A figure: a number with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from normloom.core.stage import Output
from normloom.schemas import tables

FEWEST = 5  # rows (items, ratings, labels) that a figure rests on: fewer say nothing of others


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    `low` and `high` bound its 95 % interval if one is known, `spread` is the standard deviation over runs, `rows`
    says how many rows it rests on. A figure without a value says why in `undefined`; it is never 0 instead.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    rows: int = 0
    undefined: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.undefined is None):
            raise ValueError("a figure needs either a value or the reason why it has none")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a figure must be a finite number, not {self.value}: say why it is undefined")


def too_few(rows: int, what: str = "rows") -> str | None:
    """Return why a figure of so few rows has no value, None if there are enough."""
    return f"fewer than {FEWEST} {what}" if rows < FEWEST else None


def figure_row(
    figure: Figure,
    *,
    metric: str,
    of: str,
    axis: str = "",
    slice_by: str = "overall",
    slice: str = "all",  # noqa: A002  # named as its column is
) -> dict[str, object]:
    """Return a figure as a row of a table under `tables.FIGURES`; `of` is the model, rater or panel it belongs to."""
    return {
        "parents": [],
        "content": "\x1f".join((metric, of, axis, slice_by, slice)),
        "metric": metric,
        "of": of,
        "axis": axis,
        "slice_by": slice_by,
        "slice": slice,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "spread": figure.spread,
        "rows": figure.rows,
        "undefined": figure.undefined,
    }


def figures_output(rows: Sequence[Mapping[str, object]]) -> Output:
    """Return what a stage of figures makes, from `figure_row`s."""
    frame = pl.DataFrame(rows, schema=tables.named_by_content(tables.FIGURES))
    return Output(rows=frame, attempts=len(rows))

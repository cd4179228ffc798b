"""How many rows a stage owes for each row that it reads."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True, eq=False)
class FanOut:
    """The rows that a stage owes for each row it reads, or, if `rows` is None, the reason why nobody can say.

    `rows` is a count, or an expression over the columns of the rows that are read.
    """

    rows: int | pl.Expr | None = 1
    reason: str = ""


def each(rows: int | str | pl.Expr = 1) -> FanOut:
    """Return the fan-out of a stage that owes so many rows for each row: a count, a column's name or an expression."""
    return FanOut(pl.col(rows) if isinstance(rows, str) else rows)


def free(reason: str) -> FanOut:
    """Return the fan-out of a stage that makes as many rows as it likes, and why: "one row for each group"."""
    return FanOut(rows=None, reason=reason)

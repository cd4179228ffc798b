"""How many rows a stage owes for each row that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl

from normloom.core.errors import AccountingError


class Made(Protocol):
    """What a stage made of a part."""

    @property
    def rows(self) -> pl.DataFrame:
        """The rows; each has a `row_id`, that of the row it came from, or `parents`."""

    @property
    def dropped(self) -> pl.DataFrame:
        """The ledger of rows that the method took out."""

    @property
    def quarantined(self) -> pl.DataFrame:
        """The ledger of rows that a check or an error took out."""


@dataclass(frozen=True, eq=False)
class FanOut:
    """The rows that a stage owes for each row it reads, or, if `rows` is None, the reason why nobody can say.

    `rows` is a count, or an expression over the columns of the rows that are read.
    """

    rows: int | pl.Expr | None = 1
    reason: str = ""

    def hold(self, read: pl.DataFrame, made: Made, *, where: str) -> None:
        """Raise AccountingError for a row that got other rows than it is owed and is in no ledger.

        A row of which a ledger tells may have fewer. What the function says of itself is not asked.
        """
        if self.rows is None:
            return
        if "row_id" not in made.rows.columns:
            raise AccountingError(
                f"{where}: its fan-out is declared by row, so each row must keep the row_id of the row it came from"
            )
        owed = self.rows if isinstance(self.rows, pl.Expr) else pl.lit(self.rows)
        got = made.rows.group_by("row_id").agg(_got=pl.len().cast(pl.Int64))
        told = pl.concat(
            [ledger.select(pl.col("row_id").cast(pl.String)) for ledger in (made.dropped, made.quarantined)]
        )
        account = (
            read.select("row_id", _owed=owed.cast(pl.Int64))
            .join(got, on="row_id", how="full", coalesce=True, maintain_order="left")
            .with_columns(pl.col("_owed", "_got").fill_null(0), _told=pl.col("row_id").is_in(told["row_id"].implode()))
        )
        short = (pl.col("_got") < pl.col("_owed")) & ~pl.col("_told")
        wrong = account.filter(short | (pl.col("_got") > pl.col("_owed")))
        if not wrong.is_empty():
            row_id, owes, has = wrong.select("row_id", "_owed", "_got").row(0)
            raise AccountingError(
                f"{where}: {wrong.height} of {read.height} rows are not accounted for: row {row_id} should have "
                f"given {owes} rows and gave {has}, and no ledger says why"
            )


def each(rows: int | str | pl.Expr = 1) -> FanOut:
    """Return the fan-out of a stage that makes this many rows for each row: a count, a column or an expression."""
    return FanOut(pl.col(rows) if isinstance(rows, str) else rows)


def free(reason: str) -> FanOut:
    """Return the fan-out of a stage that makes any number of rows, with the reason: "one row for each group"."""
    return FanOut(rows=None, reason=reason)

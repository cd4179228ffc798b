"""How many rows a stage must return for each row that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl

from normloom.core.errors import AccountingError, ConfigError


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
    """The rows that a stage must return per input row, or, if `rows` is None, the reason why that is not fixed.

    `rows` is a count, or an expression over the columns of the input. An input row gives all of its rows, or none and
    one ledger entry; with `by_part`, one entry for each missing row.
    """

    rows: int | pl.Expr | None = 1
    reason: str = ""
    by_part: bool = False

    def __post_init__(self) -> None:
        counted = isinstance(self.rows, int) and not isinstance(self.rows, bool) and self.rows >= 0
        if not (counted or isinstance(self.rows, pl.Expr | None)):
            raise ConfigError(
                "the rows of a fan-out must be a count, a column or an expression, such as each(2) or "
                f'each("copies"); got {self.rows!r}'
            )

    def of(self, rows: int) -> int:
        """Return how many rows this many input rows require; as many, if that depends on their content."""
        return rows * self.rows if isinstance(self.rows, int) else rows

    def hold(self, read: pl.DataFrame, made: Made, *, where: str) -> None:
        """Raise AccountingError for a row whose rows and ledger entries do not add up to what it is owed.

        What the function says of itself is not asked.
        """
        if self.rows is None:
            return
        if "row_id" not in made.rows.columns:
            raise AccountingError(
                f"{where}: its fan-out is declared by row, so each row must keep the row_id of the row it came from"
            )
        owed = self.rows if isinstance(self.rows, pl.Expr) else pl.lit(self.rows)
        owing = read.select("row_id", _owed=owed.cast(pl.Int64))
        if _all_made(owing, made.rows["row_id"]):
            return
        account = (
            owing.join(_counted("_made", made.rows), on="row_id", how="full", coalesce=True, maintain_order="left")
            .join(_counted("_listed", made.dropped, made.quarantined), on="row_id", how="left", maintain_order="left")
            .with_columns(pl.col("_owed", "_made", "_listed").fill_null(0))
        )
        got, listed, owes = pl.col("_made"), pl.col("_listed"), pl.col("_owed")
        lost = got + listed < owes if self.by_part else (got < owes) & ((got > 0) | (listed != 1))
        wrong = account.filter(lost | (got > owes))
        if not wrong.is_empty():
            row_id, owing, has, entries = wrong.select("row_id", "_owed", "_made", "_listed").row(0)
            raise AccountingError(
                f"{where}: {wrong.height} of {read.height} rows are not accounted for: row {row_id} should give "
                f"{owing} rows but gave {has}, and the ledgers list {entries} more; {self._expected}"
            )

    @property
    def _expected(self) -> str:
        if self.by_part:
            return "put each missing row into a ledger"
        return "make all rows of a row or put it into a ledger once; each(..., by_part=True) lists its missing rows"


def _all_made(owing: pl.DataFrame, made: pl.Series) -> bool:
    """Return whether each row gave all its rows, in order. Nearly all parts do, and need no join to show it."""
    runs, ids = made.rle().struct.unnest(), owing["row_id"]
    same = runs["value"].cast(pl.String).equals(ids) and runs["len"].cast(pl.Int64).equals(owing["_owed"])
    return bool(same and ids.is_unique().all())


def _counted(name: str, *frames: pl.DataFrame) -> pl.DataFrame:
    ids = pl.concat([frame.select(pl.col("row_id").cast(pl.String)) for frame in frames])
    return ids.group_by("row_id").agg(pl.len().cast(pl.Int64).alias(name))


def each(rows: int | str | pl.Expr = 1, *, by_part: bool = False) -> FanOut:
    """Return the fan-out of a stage that makes this many rows per input row: a count, a column or an expression.

    An input row gives all of its rows, or none and one ledger entry; with `by_part` each missing row has an entry.
    """
    return FanOut(pl.col(rows) if isinstance(rows, str) else rows, by_part=by_part)


def free(reason: str) -> FanOut:
    """Return the fan-out of a stage without a fixed one, with the reason, for example "one row for each group"."""
    return FanOut(rows=None, reason=reason)

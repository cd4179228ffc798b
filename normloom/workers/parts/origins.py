"""Whether the rows that a step returns name possible origins: rows that it was given, or their ancestors."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from normloom.core.errors import ContractError
from normloom.core.rows.blocks import Blocks

_ROW_ID = "^[0-9a-f]{32}$"  # as the runner makes them
_TEXT = (pl.String, pl.Categorical, pl.Enum, pl.Null)
_LISTED = {"row_id": (False,), "content": (False,), "parents": (True,), "through": (False, True)}
_EXPECTED = {
    "row_id": "the id of a row that the step was given; for new rows leave row_id out and return parents",
    "content": "text that distinguishes it from other rows with the same parents",
    "parents": "a list of the ids of the rows that it was made of",
    "through": "the id of a row of a side table, or a list of ids",
}
_OF_SOURCE = "none, since the step reads no rows: return parents (empty lists), and content that distinguishes its rows"


def require_origins(
    made: pl.DataFrame, read: pl.DataFrame | Blocks | None, sides: Sequence[pl.DataFrame | Blocks], *, where: str
) -> None:
    """Raise ContractError, naming a row, if the rows that a step made name impossible origins.

    `row_id` must be the id of a row that it was given: of its rows, or of a side table. `through`, and `parents` of
    rows without `row_id`, may also name ancestors of these, whose ids are in columns: what the step was not given must
    have the form of an id. `read` is None for a step that reads no rows, whose parents are not checked: they may come
    from outside, as those of people's answers do. Which rows were in blocks is not known.
    """
    if made.is_empty():
        return
    kept = "row_id" in made.columns
    given = [*sides] if read is None else [read, *sides]
    for name in ("row_id", "content", "through") if kept else ("parents", "content"):
        if name not in made.columns:
            continue
        texts = _texts(made[name], where)
        if name == "content" or (name == "row_id" and isinstance(read, Blocks)) or not (given or kept):
            continue
        strange = _not_in(texts, given)
        if name != "row_id" and not strange.is_empty():
            strange = strange.filter(~strange.str.contains(_ROW_ID))
        if not strange.is_empty():
            raise _refusal(made[name], strange[0], where, None if given or name != "row_id" else _OF_SOURCE)


def require_entries(
    ledger: pl.DataFrame, read: pl.DataFrame | Blocks | None, sides: Sequence[pl.DataFrame | Blocks], *, where: str
) -> None:
    """Raise ContractError for an entry of a ledger whose `row_id` or `winner` cannot be that of a row.

    Both are null for what has none, such as a record of a file, and may name ancestors, as `parents` may.
    """
    given = [*sides] if read is None else [read, *sides]
    for name in ("row_id", "winner"):
        if name not in ledger.columns or ledger.is_empty():
            continue
        strange = _not_in(ledger[name].drop_nulls().cast(pl.String), given)
        if not strange.is_empty():
            strange = strange.filter(~strange.str.contains(_ROW_ID))
        if not strange.is_empty():
            raise ContractError(f"{where}: {name} of a row in its ledgers is {strange[0]!r}, expected the id of a row")


def _texts(told: pl.Series, where: str) -> pl.Series:
    """Return the texts of a column, those of lists one after another."""
    listed = isinstance(told.dtype, pl.List | pl.Array)
    values = told.explode(empty_as_null=False) if listed else told
    if listed not in _LISTED[told.name] or not isinstance(values.dtype, _TEXT):
        raise ContractError(f"{where}: {told.name} of its rows is {told.dtype}, expected {_EXPECTED[told.name]}")
    if values.null_count():
        raise _refusal(told, None, where)
    return values.cast(pl.String)


def _not_in(ids: pl.Series, frames: Sequence[pl.DataFrame | Blocks]) -> pl.Series:
    """Return the ids that are none of these frames' rows."""
    for frame in frames:
        if isinstance(frame, Blocks) or "row_id" not in frame.columns or ids.is_empty():
            continue
        known = frame["row_id"]
        if ids.len() == known.len() and (ids == known).all():  # as most steps keep them
            return ids.clear()
        ids = ids.filter(~ids.hash().is_in(known.hash().implode()))  # several times as fast as comparing texts
    return ids


def _refusal(told: pl.Series, value: str | None, where: str, expected: str | None = None) -> ContractError:
    """Return the error about the first row that tells this value."""
    if isinstance(told.dtype, pl.List | pl.Array):
        here = next(place for place, one in enumerate(told) if one is None or value in one.to_list())
    else:
        here = next(place for place, one in enumerate(told) if one == value)
    given = "null" if value is None else repr(value)
    return ContractError(f"{where}: {told.name} of row {here} is {given}, expected {expected or _EXPECTED[told.name]}")

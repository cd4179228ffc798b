"""A column that grows value by value, kept as typed chunks instead of Python objects."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from normloom.readers.kind import MIXED, MIXED_NUMBERS, NULL, Kind, dtype_of, joined, kind_of

_CHUNK = 10_000


class Column:
    """Values of a column in the order of rows, and the kind that all of them have so far.

    Scalars are held as Polars series and the rest as JSON, so that a chunk never changes its values when a later
    one turns out to be of another kind.
    """

    def __init__(self) -> None:
        self.kind: Kind = NULL
        self._length = 0
        self._values: list[Any] = []
        self._chunks: list[tuple[Kind, pl.Series]] = []

    def put(self, row: int, value: object) -> None:
        """Add the value of a row; rows left out since the last one are null."""
        missing = row - self._length
        if missing > 0:
            self._pad(missing)
        self._values.append(value)
        self._length += 1
        if len(self._values) >= _CHUNK:
            self._flush()

    def finish(self, height: int) -> pl.Series:
        """Return the column: typed if its values are of one kind, else each value as JSON."""
        if height > self._length:
            self._pad(height - self._length)
        self._flush()
        if self.kind == MIXED:
            return pl.concat([_as_json(kind, chunk) for kind, chunk in self._chunks])
        dtype = dtype_of(self.kind)
        return pl.concat([chunk.cast(dtype) if _typed(kind) else _parsed(chunk, dtype) for kind, chunk in self._chunks])

    def _pad(self, count: int) -> None:
        self._flush()
        self._chunks.append((NULL, pl.repeat(None, count, dtype=pl.String, eager=True)))
        self._length += count

    def _flush(self) -> None:
        if not self._values:
            return
        kind = _kind(self._values)
        if _typed(kind):
            chunk = pl.Series(self._values, dtype=dtype_of(kind))
        else:
            chunk = pl.Series([None if value is None else _json(value) for value in self._values], dtype=pl.String)
        self._chunks.append((kind, chunk))
        self.kind = joined(self.kind, kind) if kind != MIXED else MIXED
        self._values = []


def as_text(column: pl.Series) -> pl.Series:
    """Return a column's values as text: text as it is, lists and objects as JSON, the rest as it is written."""
    if column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return column.cast(pl.String)
    return pl.Series(column.name, [_written(value) for value in column], dtype=pl.String)


def _kind(values: list[Any]) -> Kind:
    if set(map(type, values)) <= {str, type(None)}:  # most columns are text
        return "text"
    kind = NULL
    for value in values:
        kind = joined(kind, kind_of(value))
        if kind == MIXED:
            break
    return kind


def _typed(kind: Kind) -> bool:
    """Return whether a chunk of this kind is held as values; others are held as JSON."""
    return isinstance(kind, str) and kind not in {MIXED, MIXED_NUMBERS}


def _as_json(kind: Kind, chunk: pl.Series) -> pl.Series:
    if kind == NULL or not _typed(kind):
        return chunk
    return pl.Series([None if value is None else _json(value) for value in chunk], dtype=pl.String)


def _parsed(chunk: pl.Series, dtype: pl.DataType) -> pl.Series:
    values = [None if text is None else _fitted(json.loads(text), dtype) for text in chunk]
    return pl.Series(values, dtype=dtype, strict=False)


def _fitted(value: Any, dtype: pl.DataType | pl.datatypes.DataTypeClass) -> Any:
    """Return a JSON value with floats for the integers that its type has as such: Polars takes no list of both."""
    if value is None:
        return None
    if dtype == pl.Float64:
        return float(value)
    if isinstance(dtype, pl.List):
        return [_fitted(item, dtype.inner) for item in value]
    if isinstance(dtype, pl.Struct):
        return {one.name: _fitted(value.get(one.name), one.dtype) for one in dtype.fields}
    return value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _written(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, pl.Series):
        return _json(value.to_list())
    return _json(value) if isinstance(value, bool | int | float | list | dict) else str(value)

"""The rows of a frame as text that differs if their values do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.errors import UsageError

_FINE = 1000  # nanoseconds in a microsecond, the least that Python's times tell
_DAYS = (-719_162, 2_932_896)  # of the years 1 to 9999, from 1970 on
_LONGEST = 999_999_999  # days of a duration
_DAY = {"ms": 86_400_000, "us": 86_400_000_000}


def lines(rows: pl.DataFrame) -> Iterator[str]:
    """Yield the text of each row. Raises UsageError for a time that Python does not have in its zone."""
    exact = {name: dtype for name, found in rows.schema.items() if (dtype := _as_integers(found)) != found}
    counted = rows.select(pl.col(name).cast(dtype) for name, dtype in exact.items()).iter_rows() if exact else None
    try:
        for line in rows.iter_rows():
            fine = next(counted) if counted else ()
            yield f"{line!r}{fine!r}" if any(map(_is_fine, fine)) else repr(line)
    except (ValueError, OverflowError) as error:  # a time zone leads past the last year, or before the first
        raise UsageError(f"a date is outside the years 1 to 9999 ({error})") from error


def require_times(rows: pl.DataFrame) -> None:
    """Raise UsageError, naming the column, for a date or a duration that Python does not have."""
    for column in rows:
        _require_times(column, column.name)


def _require_times(values: pl.Series, name: str) -> None:
    """Raise UsageError for such a time in a column, or in its lists and objects."""
    dtype = values.dtype
    if isinstance(dtype, pl.List | pl.Array):
        if _has_times(dtype):
            _require_times(values.explode(empty_as_null=False), f"{name}[]")
    elif isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            _require_times(values.struct.field(field.name), f"{name}.{field.name}")
    elif limits := _limits(dtype):
        beyond = values.to_physical().is_between(*limits).not_().arg_true()
        if not beyond.is_empty():
            kind = "a duration that is too long" if dtype == pl.Duration else "a date outside the years 1 to 9999"
            record = "" if "[]" in name else f" (record {beyond[0]})"
            raise UsageError(f"column {name!r} holds {kind}{record}: make it null, or the column text")


def _has_times(dtype: pl.DataType | pl.datatypes.DataTypeClass) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_times(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_has_times(field.dtype) for field in dtype.fields)
    return dtype.is_temporal()


def _limits(dtype: pl.DataType) -> tuple[int, int] | None:
    """Return the first and the last time of a type that Python has, as Polars counts them; None if it has all."""
    if isinstance(dtype, pl.Date):
        return _DAYS
    if isinstance(dtype, pl.Datetime) and dtype.time_unit != "ns":  # whose 64 bits do not get that far
        return _DAYS[0] * _DAY[dtype.time_unit], (_DAYS[1] + 1) * _DAY[dtype.time_unit] - 1
    if isinstance(dtype, pl.Duration) and dtype.time_unit == "ms":
        return -_LONGEST * _DAY["ms"], _LONGEST * _DAY["ms"]
    return None


def _as_integers(dtype: pl.DataType) -> pl.DataType:
    """Return a type with 64-bit integers in place of the times that count nanoseconds."""
    if isinstance(dtype, pl.Time) or (isinstance(dtype, pl.Datetime | pl.Duration) and dtype.time_unit == "ns"):
        return pl.Int64()
    if isinstance(dtype, pl.Array):
        return pl.Array(_as_integers(_instance(dtype.inner)), dtype.size)
    if isinstance(dtype, pl.List):
        return pl.List(_as_integers(_instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _as_integers(_instance(field.dtype)) for field in dtype.fields})
    return dtype


def _instance(dtype: pl.DataType | pl.datatypes.DataTypeClass) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _is_fine(value: Any) -> bool:
    """Return whether a value holds a time that Python rounds."""
    if isinstance(value, list | tuple):
        return any(map(_is_fine, value))
    if isinstance(value, dict):
        return any(map(_is_fine, value.values()))
    return isinstance(value, int) and value % _FINE != 0

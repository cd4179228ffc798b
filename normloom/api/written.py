"""The rows of a frame as text that differs if their values do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.errors import UsageError

_FINE = 1000  # nanoseconds in a microsecond, the least that Python's times tell


def lines(rows: pl.DataFrame) -> Iterator[str]:
    """Yield the text of each row. Raises UsageError for a date or a duration that Python does not have."""
    exact = {name: dtype for name, found in rows.schema.items() if (dtype := _as_integers(found)) != found}
    counted = rows.select(pl.col(name).cast(dtype) for name, dtype in exact.items()).iter_rows() if exact else None
    try:
        for line in rows.iter_rows():
            fine = next(counted) if counted else ()
            yield f"{line!r}{fine!r}" if any(map(_is_fine, fine)) else repr(line)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"a date is not in the years 1 to 9999, or a duration is too long ({error})") from error


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

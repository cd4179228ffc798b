"""Shards of one source as one table: their columns must be alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from normloom.core.errors import SourceError
from normloom.readers.kind import EXACT


class Alike:
    """Takes the columns of one shard after the other. Raises SourceError if they differ."""

    def __init__(self) -> None:
        self._first: tuple[set[str], Path] | None = None

    def check(self, columns: Sequence[str], file: Path) -> None:
        """Compare a shard's columns with those of the first one."""
        if self._first is None:
            self._first = set(columns), file
        names, first = self._first
        if different := names ^ set(columns):
            name = min(different)
            has, lacks = (file, first) if name in columns else (first, file)
            raise SourceError(
                f"{has} has a column {name!r} that {lacks.name} lacks: give the shards the same columns, or name those "
                "to keep by source.keep"
            )


def joined(frames: Sequence[pl.DataFrame], files: Sequence[Path], found: dict[str, None]) -> pl.DataFrame:
    """Return the rows of all shards. Raises SourceError for columns that differ in name, or in type with loss."""
    full = [(frame, file) for frame, file in zip(frames, files, strict=True) if frame.width]
    first = full[0][0]
    alike = Alike()
    for frame, file in full:
        alike.check(frame.columns, file)
    for name in first.columns:
        types: dict[pl.DataType, Path] = {}
        for frame, file in full:
            if frame[name].null_count() < frame.height:
                types.setdefault(frame.schema[name], file)
        if len(types) > 1:
            _widened(name, [frame[name] for frame, _ in full], types, found)
    nulls = {
        name: pl.concat(
            [frame[name] for frame, _ in full if frame[name].null_count() < frame.height][:1] or [first[name]]
        ).dtype
        for name in first.columns
    }
    shards = [
        frame.select(first.columns).with_columns(
            pl.lit(None, dtype=nulls[name]).alias(name)
            for name in first.columns
            if frame.height and frame[name].null_count() == frame.height and frame.schema[name] != nulls[name]
        )
        for frame, _ in full
        if frame.height
    ]
    return pl.concat(shards, how="vertical_relaxed") if shards else first


def _widened(name: str, columns: Sequence[pl.Series], types: dict[pl.DataType, Path], found: dict[str, None]) -> None:
    """Say that numbers of several types are read as the widest; raise SourceError if that would change values."""
    listed = " and ".join(f"{kind} in {file.name}" for kind, file in types.items())
    if not all(kind.is_numeric() for kind in types):
        raise SourceError(f"column {name!r} is {listed}: give the shards the same types, or do not keep it")
    if any(kind.is_float() for kind in types):
        for column in columns:
            if column.dtype.is_integer() and column.len() and _largest(column) > EXACT:
                raise SourceError(f"column {name!r} is {listed}, with numbers that are not exact as both")
    found[f"column {name!r} is {listed}, read as one type of number"] = None


def _largest(column: pl.Series) -> int:
    ends = [int(end) for end in (column.min(), column.max()) if isinstance(end, int)]
    return max(map(abs, ends), default=0)

"""Rows a block at a time, for tables that would take much memory as one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Blocks:
    """Rows of a schema in order, made or read a block at a time, each time that they are iterated over."""

    schema: Mapping[str, pl.DataType]
    height: int
    made: Callable[[], Iterator[pl.DataFrame]]

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self.made()

    def is_empty(self) -> bool:
        """Return whether there are no rows."""
        return not self.height

    @classmethod
    def of(cls, rows: pl.DataFrame, size: int) -> Blocks:
        """Return the rows of a frame in blocks of a size."""
        return cls(rows.schema, rows.height, lambda: rows.iter_slices(size))

"""Files that only one of two tables has: to compare the tables, no other needs to be read.

A file with the same checksum has the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from normloom.core.table import TableRef
from normloom.store.store import Store
from normloom.workers.parts.job import TableFiles
from normloom.workers.parts.reads import scan

Checked = tuple[tuple[Path, int], str]  # a file of a table with its row count, and its checksum
AFTER = "_after"  # the column that tells how many files that both tables have are before a row


@dataclass(frozen=True)
class Unshared:
    """The files of a table that another does not have in the same order, and how many shared ones are before each.

    `table` has all its files.
    """

    table: TableFiles
    files: TableFiles
    after: tuple[int, ...]

    def rows(self, *columns: str | pl.Expr) -> pl.DataFrame:
        """Return columns of the rows of these files, and `AFTER`."""
        if not self.files:
            return scan(self.table[:1]).select(*columns, pl.lit(0, dtype=pl.Int32).alias(AFTER)).head(0).collect()
        counts = {AFTER: self.after, "rows": [rows for _, rows in self.files]}
        after = pl.DataFrame(counts).select(pl.col(AFTER).cast(pl.Int32).repeat_by("rows").explode())
        return scan(self.files).select(columns).collect().with_columns(after)


def checked(store: Store, ref: TableRef) -> list[Checked]:
    """Return the files of a table, with their checksums; raises StoreError for one that is not as it was written."""
    return list(zip(store.files(ref), (checksum for _, checksum in store.checksums(ref)), strict=True))


def with_checksums(files: TableFiles, checksums: Mapping[Path, str]) -> list[Checked]:
    """Return files with their checksums, which are empty if unknown: such a file is no other's equal."""
    return [(file, checksums.get(file[0], "")) for file in files]


def unshared(before: Sequence[Checked], now: Sequence[Checked]) -> tuple[Unshared, Unshared]:
    """Return the files of each of two tables without those that both have in the same order, and without empty ones.

    If all rows of these that both tables have are in the same order and have the same `AFTER`, so are those of the
    tables.
    """
    there = {checksum: place for place, ((_, rows), checksum) in reversed(list(enumerate(before))) if rows and checksum}
    shared = dict[int, int]()  # places in both tables, ascending
    last = -1
    for number, (_, checksum) in enumerate(now):
        if (place := there.get(checksum, -1)) > last:
            shared[number] = last = place
    return _without(before, {*shared.values()}), _without(now, shared.keys())


def alike(one: pl.Series, other: pl.Series) -> tuple[int, int]:
    """Return how many values two series have in common at their start, and of the rest at their end.

    Whatever came or went lies between: only there values need to be looked up.
    """
    head = _same(one, other)
    return head, _same(one[head:].reverse(), other[head:].reverse())


def _same(one: pl.Series, other: pl.Series) -> int:
    length = min(len(one), len(other))
    differing = one[:length].ne_missing(other[:length]).arg_true()
    return differing[0] if len(differing) else length


def _without(table: Sequence[Checked], shared: Set[int]) -> Unshared:
    files, after, passed = list[tuple[Path, int]](), list[int](), 0
    for place, (file, _) in enumerate(table):
        if place in shared:
            passed += 1
        elif file[1]:
            files.append(file)
            after.append(passed)
    return Unshared(tuple(file for file, _ in table), tuple(files), tuple(after))

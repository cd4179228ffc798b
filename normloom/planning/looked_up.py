"""Rows whose looked-up side rows differ from an earlier table's: tables are compared once, not part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain, repeat
from operator import or_
from pathlib import Path

import polars as pl

from normloom.core.errors import StoreError
from normloom.core.table import Manifest
from normloom.planning.unshared import AFTER, Checked, alike, checked, unshared, with_checksums
from normloom.store.parts import ROW_GROUP, read_slice
from normloom.store.store import Store
from normloom.workers.parts.job import TableFiles
from normloom.workers.parts.reads import scan, schema_of


def rows_with_others(
    store: Store,
    earlier: Manifest,
    files: TableFiles,
    sides: Sequence[TableFiles],
    looks_up: Sequence[str],
    columns: Sequence[tuple[str, ...] | None] = (),
    *,
    checksums: Mapping[Path, str],
) -> list[int] | None:
    """Return which rows in `files` look up side rows that have come, gone or changed since an earlier table was made.

    Of all other rows those that they look up are the same and in the same order, in those of the `columns` that are
    read of each side table (None, or no entry: all). None if it cannot be told: a side table of then is gone, or has
    other columns or its rows in another order. Files of a side table that the earlier one has too, by the `checksums`,
    are not read.
    """
    before = earlier.sides[: len(earlier.sides) - earlier.key_fields.get("products", 0)]
    if len(before) != len(sides):
        return None
    names: defaultdict[str, list[pl.Series]] = defaultdict(list)  # by which such side rows are looked up
    try:
        for ref, side, column, read in zip(before, sides, looks_up, chain(columns, repeat(None)), strict=False):
            now = with_checksums(side, checksums)
            others = _differing(checked(store, ref), now, _key(side, column), read)
            if others is None:
                return None
            names[column].append(others)
    except StoreError:  # removed or damaged meanwhile
        return None
    here = schema_of(files)
    for number, column in reversed(list(enumerate(looks_up[: len(sides)]))):
        if column in here or not (wanted := _together(names.pop(column))).len():
            continue
        pairs = zip(sides[:number], looks_up, strict=False)
        found = next(((side, by) for side, by in pairs if column in schema_of(side)), None)
        if found is None:  # the column holds ids of the rows
            names["row_id"].append(wanted)
        else:  # rows of another side table name them
            side, by = found
            naming = scan(side).filter(_among(column, wanted))
            names[by].append(naming.select(_key(side, by)).collect().to_series())
    differing = {column: wanted for column, some in names.items() if (wanted := _together(some)).len()}
    if not differing:
        return []
    naming = scan(files).with_row_index("at").filter(pl.any_horizontal(_among(*some) for some in differing.items()))
    return naming.select("at").collect()["at"].to_list()


def _differing(
    before: Sequence[Checked], now: Sequence[Checked], key: str, columns: tuple[str, ...] | None
) -> pl.Series | None:
    """Return the `key` of the rows in which two tables differ; None if rows that both have are in another order."""
    lone, other = unshared(before, now)
    then, today = (
        {name: dtype for name, dtype in schema_of(one.table).items() if columns is None or name in columns}
        for one in (lone, other)
    )
    if then != today:
        return None
    old, new = (one.rows("row_id", pl.col(key).alias("key")).with_row_index("at") for one in (lone, other))
    head, tail = alike(old["row_id"], new["row_id"])
    there = old.select("row_id", before="at", then=AFTER, was="key")
    moved, among = new[head : len(new) - tail], there[head : len(there) - tail]
    stayed = pl.concat(
        [
            pl.concat([new[:head], there[:head].drop("row_id")], how="horizontal"),
            moved.join(among, on="row_id", maintain_order="left"),
            pl.concat([new[len(new) - tail :], there[len(there) - tail :].drop("row_id")], how="horizontal"),
        ]
    )
    if not (stayed["before"].is_sorted() and stayed[AFTER].equals(stayed["then"])):
        return None
    gone = old[head : len(old) - tail].join(moved, on="row_id", how="anti")["key"]
    come = moved.join(among, on="row_id", how="anti")["key"]
    return pl.concat([gone, come, *_changed(lone.files, other.files, stayed, columns)])


def _changed(
    before: TableFiles, now: TableFiles, stayed: pl.DataFrame, columns: tuple[str, ...] | None
) -> Iterator[pl.Series]:
    """Yield the keys of rows that both tables have and that are not the same, block by block."""
    for block in stayed.iter_slices(ROW_GROUP):
        old, new = _rows_at(before, block["before"], columns), _rows_at(now, block["at"], columns)
        changed = reduce(or_, (old[name].ne_missing(new[name]) for name in new.columns))
        yield from (block[key].filter(changed) for key in ("key", "was"))  # it may have another key than before


def _rows_at(files: TableFiles, places: pl.Series, columns: tuple[str, ...] | None) -> pl.DataFrame:
    """Return the rows at ascending places of a table."""
    first, last = places[0], places[-1]
    rows = read_slice(files, first, last + 1, columns=columns)
    return rows if len(rows) == len(places) else rows.select(pl.all().gather(places - first))


def _together(names: Sequence[pl.Series]) -> pl.Series:
    return pl.concat(names).unique()


def _among(column: str, names: pl.Series) -> pl.Expr:
    return pl.col(column).is_in(names.implode())


def _key(files: TableFiles, column: str) -> str:
    return column if column in schema_of(files) else "row_id"

"""How the rows of two tables differ, found by DuckDB over their Parquet files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from normloom.core.errors import StoreError
from normloom.store.views import reading


@dataclass(frozen=True, kw_only=True)
class RowChange:
    """One row that both tables hold, with the values that differ: before and after, by column."""

    row_id: str
    values: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class TableDiff:
    """How the rows of two tables differ; rows are the same if their ids are.

    `changed_in` counts changed rows by column, the most frequent first. Columns that only one table has, and
    those of another type (`retyped`: before and after), are named and not compared.
    """

    added: int
    removed: int
    changed: int
    changed_in: Mapping[str, int]
    columns_added: Sequence[str]
    columns_removed: Sequence[str]
    retyped: Mapping[str, tuple[str, str]]
    examples: Sequence[RowChange]


def diff_tables(before: Sequence[Path], after: Sequence[Path], *, examples: int = 3) -> TableDiff:
    """Return how two tables differ, given their Parquet files; raises StoreError where a row id occurs twice."""
    with _tables(before=before, after=after) as connection:
        old, new = _types(connection, "before"), _types(connection, "after")
        common = [name for name in new if old.get(name) == new[name] and name != "row_id"]
        differs = [f", a.{_quoted(name)} IS DISTINCT FROM b.{_quoted(name)} AS d{n}" for n, name in enumerate(common)]
        connection.execute(
            f"CREATE TEMP TABLE pairs AS SELECT row_id{''.join(differs)} FROM after a JOIN before b USING (row_id)"  # noqa: S608  # quoted names
        )
        changed = " OR ".join(f"d{n}" for n in range(len(common))) or "false"
        counts = [f", count(*) FILTER (d{n})" for n in range(len(common))]
        pairs, ids, rows_changed, *changed_in = _one(
            connection,
            f"SELECT count(*), count(DISTINCT row_id), count(*) FILTER ({changed}){''.join(counts)} FROM pairs",  # noqa: S608
        )
        if ids != pairs:
            raise StoreError(
                f"the tables {before[0].parent} and {after[0].parent} cannot be compared: a row id occurs twice"
            )
        counted = sorted(zip(common, changed_in, strict=True), key=lambda pair: -pair[1])
        frequent = {name: count for name, count in counted if count}
        return TableDiff(
            added=_one(connection, "SELECT count(*) FROM after")[0] - pairs,
            removed=_one(connection, "SELECT count(*) FROM before")[0] - pairs,
            changed=rows_changed,
            changed_in=frequent,
            columns_added=[name for name in new if name not in old],
            columns_removed=[name for name in old if name not in new],
            retyped={name: (old[name], new[name]) for name in new if old.get(name, new[name]) != new[name]},
            examples=_examples(connection, {name: f"d{common.index(name)}" for name in frequent}, examples),
        )


@dataclass(frozen=True, kw_only=True)
class DifferingRow:
    """A row that two tables do not share; `values` has before and after by column, of a changed one what differs."""

    row_id: str
    state: Literal["added", "removed", "changed"]
    values: Mapping[str, tuple[Any, Any]]


def differing_rows(
    before: Sequence[Path], after: Sequence[Path], *, offset: int = 0, limit: int = 50
) -> list[DifferingRow]:
    """Return the rows that differ between two tables, given their Parquet files, by row id.

    A changed row differs in a column that both tables have with one type.
    """
    with _tables(before=before, after=after) as connection:
        old, new = _types(connection, "before"), _types(connection, "after")
        names = list(dict.fromkeys([*new, *old]))
        common = [name for name in new if old.get(name) == new[name] and name != "row_id"]
        differ = " OR ".join(f"a.{_quoted(name)} IS DISTINCT FROM b.{_quoted(name)}" for name in common) or "false"
        values = [f"b.{_quoted(name)}" if name in old else "NULL" for name in names]
        values += [f"a.{_quoted(name)}" if name in new else "NULL" for name in names]
        chosen = connection.execute(
            f"SELECT coalesce(a.row_id, b.row_id), a.row_id, b.row_id, {', '.join(values)} "  # noqa: S608  # quoted names
            "FROM after a FULL JOIN before b ON a.row_id = b.row_id "
            f"WHERE a.row_id IS NULL OR b.row_id IS NULL OR {differ} ORDER BY 1 LIMIT {limit} OFFSET {offset}"
        ).fetchall()
    found = []
    for row_id, is_new, is_old, *both in chosen:
        pairs = dict(zip(names, zip(both[: len(names)], both[len(names) :], strict=True), strict=True))
        if is_new and is_old:
            changed = {name: pairs[name] for name in common if pairs[name][0] != pairs[name][1]}
            found.append(DifferingRow(row_id=row_id, state="changed", values=changed))
        else:
            found.append(DifferingRow(row_id=row_id, state="added" if is_new else "removed", values=pairs))
    return found


@contextmanager
def _tables(**files: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with a view for each list of files; it spills to a directory that is removed after it."""
    with tempfile.TemporaryDirectory(prefix="normloom-") as spill, duckdb.connect() as connection:
        connection.execute("SET temp_directory = ?", [spill])
        for path in [path for paths in files.values() for path in paths][:1]:
            reading(path, connection)
        for name, paths in files.items():
            connection.read_parquet([str(path) for path in paths]).create_view(name)
        yield connection


def _types(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    relation = connection.table(view)
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _examples(connection: duckdb.DuckDBPyConnection, flags: Mapping[str, str], limit: int) -> list[RowChange]:
    """Return the first changed rows, by id, so that the same ones are shown every time.

    `flags` gives for each column that changed the column of `pairs` that says where.
    """
    if not flags or not limit:
        return []
    chosen = connection.execute(
        f"SELECT row_id, {', '.join(flags.values())} FROM pairs WHERE {' OR '.join(flags.values())} "  # noqa: S608  # names of our own
        f"ORDER BY row_id LIMIT {limit}"
    ).fetchall()
    names, slots = ", ".join(map(_quoted, flags)), ", ".join("?" for _ in chosen)
    ids = [row_id for row_id, *_ in chosen]
    old, new = (
        {
            row_id: values
            for row_id, *values in connection.execute(
                f"SELECT row_id, {names} FROM {view} WHERE row_id IN ({slots})",  # noqa: S608  # quoted names
                ids,
            ).fetchall()
        }
        for view in ("before", "after")
    )
    return [
        RowChange(
            row_id=row_id,
            values={
                name: (was, now)
                for name, was, now, differs in zip(flags, old[row_id], new[row_id], marks, strict=True)
                if differs
            },
        )
        for row_id, *marks in chosen
    ]


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None  # aggregates always give one row
    return row


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

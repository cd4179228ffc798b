"""DuckDB over the store: each stage's newest table is a view, and so is what it dropped and quarantined."""

from __future__ import annotations

from typing import Any

import duckdb

from normloom.errors import StoreError, UsageError
from normloom.store import Store
from normloom.table import KINDS


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """Return a connection with views `<system>_<stage>`, `..._dropped` and `..._quarantined`."""
    connection = duckdb.connect()
    for system in store.systems():
        for manifest in store.newest(system):
            directory = store.table_directory(manifest.ref)
            for kind in KINDS:
                name = f"{system}_{manifest.stage}" + ("" if kind == "rows" else f"_{kind}")
                files = ", ".join(_quoted(str(path)) for path, _ in manifest.files(directory, kind))
                tables = f"read_parquet([{files}], hive_partitioning = false)"  # a folder `a=b` gives no column
                try:
                    connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {tables}')  # noqa: S608  # names and paths of our own
                except duckdb.Error as error:
                    raise StoreError(f"table {manifest.ref} cannot be read: {error}; build it again") from error
    return connection


def query(store: Store, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a SELECT over the views and return its columns and rows, the first `limit` of them where one is given.

    Raises UsageError with DuckDB's message and the views there are.
    """
    connection = connect(store)
    try:
        found: duckdb.DuckDBPyRelation | None = connection.sql(sql)
        if found is None:
            raise UsageError(f"{sql!r} gives no rows: expected one SELECT")
        found = found if limit is None else found.limit(limit)
        return list(found.columns), found.fetchall()
    except duckdb.Error as error:
        views = [f"{system}_{manifest.stage}" for system in store.systems() for manifest in store.newest(system)]
        damaged = [why for system in store.systems() for why in store.unreadable(system)]
        there = (
            f"the views are {', '.join(views)}, each also with _dropped and _quarantined"
            if views
            else f"the store at {store.root} has no tables yet"
        )
        raise UsageError("; ".join([f"the query cannot be run: {error}", *damaged, there])) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

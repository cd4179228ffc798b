"""DuckDB over the store: each stage's newest table is a view, and so is what it dropped and quarantined."""

from __future__ import annotations

import duckdb

from normloom.errors import StoreError
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
                connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet([{files}])')  # noqa: S608  # names and paths of our own
    return connection


def query(store: Store, sql: str) -> duckdb.DuckDBPyRelation:
    """Run a SELECT over the views; raises StoreError with DuckDB's message and the views there are."""
    connection = connect(store)
    try:
        return connection.sql(sql)
    except duckdb.Error as error:
        views = [
            name for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        ]
        there = f"the views are {', '.join(sorted(views))}" if views else f"the store at {store.root} has no tables yet"
        raise StoreError(f"the query cannot be run: {error}; {there}") from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

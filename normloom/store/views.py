"""DuckDB over the store: each stage's newest table is a view, and so is what it dropped and quarantined.

What a younger table that is not published has in quarantine is there too, with `published` false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import LEDGERS, Kind
from normloom.store.store import Store
from normloom.store.unpublished import quarantines, unpublished

_VIEWS: Mapping[str, Kind] = {"": "rows", "_dropped": "dropped"}


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """Return a connection with views `<system>_<stage>`, `..._dropped` and `..._quarantined`.

    The last has a column `published`: false for rows of a table that was refused or is not finished.
    """
    connection = reading(store.root, duckdb.connect())
    for system in store.systems():
        for manifest in store.newest(system):
            directory = store.table_directory(manifest.ref)
            for suffix, kind in _VIEWS.items():
                rows = selected([path for path, _ in manifest.files(directory, kind)], kind=kind)
                _create(connection, f"{system}_{manifest.stage}{suffix}", [rows], table=str(manifest.ref))
        aside: dict[str, list[str]] = {}
        for found in quarantines(store, system):
            rows = selected(found.files, f", {str(found.published).lower()} AS published", kind="quarantined")
            aside.setdefault(found.stage, []).append(rows)
        for stage, selects in aside.items():
            _create(connection, f"{system}_{stage}_quarantined", selects, table=f"{system}/{stage}")
    return connection


def reading(root: Path, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Let a connection read the files of a place; those of object storage without an extension of DuckDB's."""
    if isinstance(root, ObjectPath):
        from obstore.fsspec import FsspecStore

        root.exists()  # sets what the file system reads from the environment
        fresh = FsspecStore("s3", skip_instance_cache=True)  # type: ignore[call-overload]  # fsspec's; the endpoint may differ
        connection.register_filesystem(fresh)
    return connection


def selected(files: Sequence[Path], column: str = "", *, kind: Kind = "rows") -> str:
    """Return the SELECT of all rows in Parquet files, and maybe one more column; a ledger may have no file."""
    if not files:
        nothing = ", ".join(f"NULL::VARCHAR AS {name}" for name in LEDGERS[kind])
        return f"SELECT {nothing}{column} WHERE false"  # names of our own
    named = ", ".join(_quoted(str(path)) for path in files)
    return f"SELECT *{column} FROM read_parquet([{named}], hive_partitioning = false)"  # noqa: S608  # paths of our own; a folder `a=b` gives no column


def _create(connection: duckdb.DuckDBPyConnection, name: str, selects: Sequence[str], *, table: str) -> None:
    try:
        connection.execute(f'CREATE VIEW "{name}" AS {" UNION ALL ".join(selects)}')
    except duckdb.Error as error:
        raise StoreError(f"table {table} cannot be read: {error}; build it again") from error


def query(store: Store, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run a SELECT over the views and return its columns and rows, the first `limit` of them if one is given.

    Raises UsageError with DuckDB's message and the views there are.
    """
    connection = connect(store)
    try:
        found: duckdb.DuckDBPyRelation | None = connection.sql(sql)
        if found is None:
            raise UsageError(f"{sql!r} returns no rows: expected one SELECT")
        found = found if limit is None else found.limit(limit)
        return list(found.columns), found.fetchall()
    except duckdb.Error as error:
        damaged = [why for system in store.systems() for why in store.unreadable(system)]
        reason = " ".join(str(error).split())
        raise UsageError("; ".join([f"the query cannot be run: {reason}", *damaged, _there(store)])) from error


def _there(store: Store) -> str:
    """Name the views."""
    views = [f"{system}_{manifest.stage}" for system in store.systems() for manifest in store.newest(system)]
    others = [f"{system}_{table.stage}" for system in store.systems() for table in unpublished(store, system)]
    refused = [f"{name}_quarantined" for name in others if name not in views]
    if not views and not refused:
        return f"the store at {store.root} has no tables yet"
    published = f"{', '.join(views)}, each also with _dropped and _quarantined" if views else ""
    return f"the views are {', and '.join(filter(None, [published, ', '.join(refused)]))}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

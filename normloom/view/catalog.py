"""The newest tables of a store as a page lists them, and a connection that reads only these."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import KINDS, Kind, Manifest
from normloom.schemas.media.media_tables import SPAN
from normloom.settings.systems import system_named, system_names
from normloom.store.store import Store
from normloom.store.unpublished import quarantines
from normloom.store.views import connect

MEDIA = frozenset({"media_id", "kind", *SPAN})
FRESH_SECONDS = 2.0  # for so long the store is not asked for newer tables
SLOWEST = 30.0  # seconds after which a query is given up


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A table, or what it dropped or quarantined; `name` is its view. `rows` counts what a page can show."""

    name: str
    system: str
    stage: str
    kind: Kind
    rows: int
    created: str


class Catalog:
    """The newest tables of a store, looked up again as builds publish newer ones. Any number of threads may ask."""

    def __init__(self, store: Store, *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self.store = store
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._seen: tuple[Any, ...] = ()
        self._listed: tuple[Listed, ...] = ()
        self._media: tuple[tuple[str, Manifest], ...] = ()
        self._checked = float("-inf")

    def tables(self) -> tuple[Listed, ...]:
        """Return what there is, by system, in the order in which it was made."""
        with self._lock:
            self._refresh()
            return self._listed

    def table(self, name: str) -> Listed:
        """Return a table by the name of its view; raises UsageError."""
        tables = self.tables()
        found = next((table for table in tables if table.name == name), None)
        if found is None:
            raise UsageError(f"unknown table {name!r}; available: {', '.join(table.name for table in tables)}")
        return found

    def media_tables(self) -> tuple[tuple[str, Manifest], ...]:
        """Return the tables that hold images, sound or video, with their manifests."""
        with self._lock:
            self._refresh()
            return self._media

    def columns(self, name: str) -> Mapping[str, str]:
        """Return the columns of a table with DuckDB's types; raises UsageError for an unknown table."""
        self.table(name)
        with self.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(f'DESCRIBE "{name}"').fetchall()}

    @contextmanager
    def reading(self, *, seconds: float = SLOWEST) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor that can read the store's tables and nothing else; a query that takes too long is ended."""
        with self._lock:
            self._refresh()
            assert self._connection is not None
            cursor = self._connection.cursor()
        ended = threading.Timer(seconds, cursor.interrupt)
        ended.start()
        try:
            yield cursor
        except duckdb.InterruptException as error:
            raise UsageError(
                f"the query took over {seconds:g} s and was stopped; filter first, or use a LIMIT"
            ) from error
        finally:
            ended.cancel()
            cursor.close()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._connection and now - self._checked < self._fresh_seconds:
            return
        newest = [manifest for system in self.store.systems() for manifest in self.store.newest(system)]
        aside = [(system, found) for system in self.store.systems() for found in quarantines(self.store, system)]
        seen = (*(manifest.ref for manifest in newest), *((name, str(found.files)) for name, found in aside))
        self._checked = now
        if self._connection and seen == self._seen:
            return
        connection = _confined(connect(self.store), self.store)
        views = {
            row[0] for row in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        }
        self._listed = tuple(_listed(newest, aside, views))
        self._media = tuple(_media(newest, connection))
        old, self._connection, self._seen = self._connection, connection, seen
        if old:
            old.close()


def _listed(newest: list[Manifest], aside: list[tuple[str, Any]], views: set[str]) -> Iterator[Listed]:
    waiting: dict[str, int] = {}
    for system, found in aside:
        name = f"{system}_{found.stage}_quarantined"
        waiting[name] = waiting.get(name, 0) + found.count
    suffixes: dict[Kind, str] = {kind: "" if kind == "rows" else f"_{kind}" for kind in KINDS}
    for manifest in newest:
        for kind, suffix in suffixes.items():
            name = f"{manifest.system}_{manifest.stage}{suffix}"
            rows = waiting.pop(name, 0) if kind == "quarantined" else manifest.count(kind)
            if name in views and (rows or kind == "rows"):
                yield Listed(
                    name=name,
                    system=manifest.system,
                    stage=manifest.stage,
                    kind=kind,
                    rows=rows,
                    created=manifest.created,
                )
    for system, found in aside:  # of tables that were refused or are not finished
        name = f"{system}_{found.stage}_quarantined"
        if rows := waiting.pop(name, 0):
            yield Listed(name=name, system=system, stage=found.stage, kind="quarantined", rows=rows, created="")


def _media(newest: list[Manifest], connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, Manifest]]:
    for manifest in newest:
        if any(part.attached for part in manifest.parts):
            name = f"{manifest.system}_{manifest.stage}"
            columns = {row[0] for row in connection.execute(f'DESCRIBE "{name}"').fetchall()}
            if columns >= MEDIA:
                yield name, manifest


def _confined(connection: duckdb.DuckDBPyConnection, store: Store) -> duckdb.DuckDBPyConnection:
    """Let queries read the files of the store only, whatever they name."""
    if not isinstance(store.root, ObjectPath):
        connection.execute("SET allowed_directories = [$root]", {"root": f"{store.root.resolve()}/"})
        connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def warnings(systems: Collection[str]) -> dict[str, str]:
    """Return what the data set cards of these systems warn of; systems that cannot be loaded have no card."""
    found = {}
    for name in sorted(set(systems) & set(system_names())):
        try:
            about = system_named(name).about
        except (StoreError, UsageError):
            continue
        if about and about.warning:
            found[name] = about.warning
    return found

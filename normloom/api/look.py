"""Inspect stores: rows by SQL, and where a row came from."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from normloom.api.result import Result
from normloom.core.errors import UsageError
from normloom.history.builds import find_build
from normloom.lineage.diff import StageDiff
from normloom.lineage.diff import diff as diff_builds
from normloom.lineage.trace import Trace
from normloom.lineage.trace import trace as trace_row
from normloom.store.store import Store
from normloom.store.views import query as query_store


def open_store(path: str | os.PathLike[str] = "store") -> Store:
    """Return the store in a directory or at s3://bucket/prefix; raises StoreError if a newer Normloom wrote it."""
    return Store(Path(path))


def query(sql: str, *, store: str | os.PathLike[str] | Store = "store") -> pl.DataFrame:
    """Return the rows of a SELECT over a store's views, such as `savacu_publish`. Raises UsageError."""
    columns, rows = query_store(_store(store), sql)
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def trace(result: Result | Store | str | os.PathLike[str], row: int | str = 0, *, forward: bool = False) -> Trace:
    """Return where a row came from, or with `forward` what was derived from it.

    `row` is a row id, or the position of a row in the released table of a result. Raises UsageError for an unknown row.
    """
    if isinstance(row, int):
        if not isinstance(result, Result):
            raise TypeError("name a row by its id, or by its position in the rows of a result")
        rows = result.manifest.count("rows")
        if not -rows <= row < rows:
            raise UsageError(f"no row {row}: the released table has {rows}")
        row = str(result.rows.select("row_id").slice(row, 1).collect().item())
    return trace_row(result.store if isinstance(result, Result) else _store(result), row, forward=forward)


def diff(
    before: Result | str = "previous",
    after: Result | str = "last",
    *,
    store: str | os.PathLike[str] | Store = "store",
    system: str | None = None,
) -> list[StageDiff]:
    """Return how each stage differs between two builds: state, fields of the key, rows and values, dropped rows.

    A build is a `Result`, its id, or "last", "previous", "last~N" of a `system` (default: the store's only one).
    Raises UsageError for an unknown build, or for builds of different systems.
    """
    where = next((one.store for one in (after, before) if isinstance(one, Result)), None) or _store(store)
    first, second = (
        find_build(where, one.built.build if isinstance(one, Result) else one, system=system) for one in (before, after)
    )
    return diff_builds(first, second, where)


def _store(store: Store | str | os.PathLike[str]) -> Store:
    return store if isinstance(store, Store) else open_store(store)

"""Look at stores: rows by SQL, and where a row came from."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from normloom.api.result import Result
from normloom.lineage.trace import Trace
from normloom.lineage.trace import trace as trace_row
from normloom.store.store import Store
from normloom.store.views import query as query_store


def open_store(path: str | os.PathLike[str] = "store") -> Store:
    """Return the store in a folder."""
    return Store(Path(path))


def query(sql: str, *, store: str | os.PathLike[str] | Store = "store") -> pl.DataFrame:
    """Return the rows of a SELECT over the views of a store, such as `savacu_publish`; raises UsageError."""
    columns, rows = query_store(_store(store), sql)
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def trace(result: Result | Store | str | os.PathLike[str], row: int | str = 0, *, forward: bool = False) -> Trace:
    """Return where a row came from, or with `forward` what became of it.

    `row` is a row id, or the place of a row in the released table of a result. Raises UsageError for an unknown row.
    """
    if isinstance(row, int):
        if not isinstance(result, Result):
            raise TypeError("a row is told by its id, or by its place in the rows of a result")
        row = str(result.rows.select("row_id").slice(row, 1).collect().item())
    return trace_row(result.store if isinstance(result, Result) else _store(result), row, forward=forward)


def _store(store: Store | str | os.PathLike[str]) -> Store:
    return store if isinstance(store, Store) else open_store(store)

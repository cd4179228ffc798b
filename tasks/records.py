"""What stages that read a source make of its records: rows, those beyond a limit, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.stage import Output, dropped_rows, quarantined, quarantined_frame
from normloom.readers.records import none_usable
from normloom.schemas import tables

Entry = dict[str, str | None]


def fault(record: Mapping[str, Any], rule: str, reason: str) -> Entry:
    """Return the quarantine's entry of a record; its number, `source_row`, precedes the reason."""
    return quarantined({**record, "row_id": None}, rule, f"record {record['source_row']}: {reason}")


def source_rows(
    rows: pl.DataFrame, aside: list[Entry], *, key: str | pl.Expr, limit: int | None, source: str, expected: str = ""
) -> Output:
    """Return the rows of a source, told apart by `key`; those beyond the limit are dropped as `limit`.

    `aside` are the entries of records that cannot be used. Raises SourceError, with what was `expected`, if no row is
    left.
    """
    if rows.is_empty():
        raise none_usable(source, aside, expected=expected)
    kept = rows.head(limit or rows.height)
    beyond = rows.slice(kept.height).with_columns(row_id=pl.lit(None, dtype=pl.String))
    return Output(
        rows=kept.with_columns(parents=pl.lit([], dtype=tables.TEXTS), content=key),
        dropped=dropped_rows(beyond, reason="limit"),
        quarantined=quarantined_frame(aside),
        attempts=rows.height + len(aside),
    )

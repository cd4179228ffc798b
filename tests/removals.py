"""Near-duplicates found and taken out, as the two stages do it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from normloom.core.stage import Output
from normloom.tasks.duplicates.by_meaning import duplicates_by_meaning
from normloom.tasks.duplicates.deduplicate import Deduplication, deduplicate
from normloom.tasks.duplicates.duplicates import duplicates


def deduplicated(
    rows: pl.DataFrame,
    args: Deduplication,
    known: pl.DataFrame | None = None,
    *,
    vectors: pl.DataFrame | None = None,
    column: str = "prompt",
    **values: Any,
) -> Output:
    """Return the rows that stay and the ledger of the others, with the metrics of the search."""
    if vectors is None:
        found = duplicates.function(rows, args, known, column=column, **values)
    else:
        found = duplicates_by_meaning.function(rows, args, vectors, known, column=column, **values)
    output = deduplicate.function(rows, found.rows, features=args.features, column=column)
    return replace(output, metrics=found.metrics)

"""The distinct conversations of a table of ratings, as texts to be labelled."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people import demo_tables
from normloom.steps.step import step
from normloom.tasks import bounds


@step(makes=demo_tables.CONVERSATIONS, bound=bounds.conversations_found, fan_out=free("one row for each item"))
def conversations(rows: pl.DataFrame) -> Output:
    """Return one row for each item, in the order in which they come first; its parents are its ratings.

    `prompt` is what is labelled and judged: the context and, on a line of its own, the response.
    """
    distinct = rows.group_by("item_id", maintain_order=True).agg(
        pl.first("source_row", "context", "response", "safety_gold"), parents="row_id"
    )
    made = distinct.with_columns(
        prompt=pl.format("{}\nRESPONSE: {}", "context", "response"),
        history=pl.lit(None, dtype=tables.MESSAGES),  # it is in the prompt
        origin=pl.lit("source"),
        reference=pl.lit(None, dtype=tables.TEXTS),
        content=pl.col("item_id"),
    )
    return Output(rows=made)

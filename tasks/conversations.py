"""The distinct conversations of a table of ratings, as texts to be labelled."""

from __future__ import annotations

import polars as pl

from normloom.schemas import demo_tables, tables
from normloom.stage import NoArguments, Output, Stage
from normloom.tasks import bounds


def find_conversations(rows: pl.DataFrame, arguments: NoArguments) -> Output:  # noqa: ARG001  # as stages are called
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
    return Output(rows=made, attempts=made.height)


def conversations(ratings: Stage, *, name: str = "conversations") -> Stage:
    """Return the stage that finds the distinct conversations."""
    return Stage(
        name=name,
        function=find_conversations,
        bound=bounds.conversations_found,
        arguments=NoArguments(),
        contract=demo_tables.CONVERSATIONS,
        inputs=(ratings,),
    )

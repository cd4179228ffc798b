"""Bring selected responses, their prompts' labels and the user's own columns together in the table that is released."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import IDENTITY
from normloom.core.fan_out import each
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import messages
from normloom.tasks.release.source_columns import released_names


@step(
    makes=lambda given: tables.published(given["dimensions"], given["carry"]),
    part_rows=2048,
    looks_up=("prompt_id", "source_row"),
    side_reads=lambda given: (("origin", "source_row", "labels", *given["carry"]), None),
    bound=bounds.as_many,
    fan_out=each(),
)
def publish(
    rows: pl.DataFrame,
    prompts: pl.DataFrame,
    own: pl.DataFrame | None = None,
    *,
    dimensions: tuple[str, ...] = DIMENSIONS,
    carry: tuple[str, ...] = (),
) -> Output:
    """Join responses with the labels of their prompts, one column of labels for each dimension.

    `own` are the user's columns by `source_row`; they are null for expansions. `carry` names columns of the prompts.
    """
    columns = tables.published(dimensions, carry).columns
    element = pl.element().struct
    labels = prompts.select(
        pl.col("row_id").alias("prompt_id"),
        "origin",
        "source_row",
        *carry,
        *(
            pl.col("labels")
            .list.filter(element.field("dimension") == dimension)
            .list.eval(pl.struct(element.field("label"), element.field("probability")))
            .alias(dimension)
            for dimension in dimensions
        ),
    )
    joined = rows.join(labels, on="prompt_id", how="left", maintain_order="left").with_columns(messages())
    released = joined.select("row_id", *(name for name in columns if name in joined.columns))
    return Output(rows=released if own is None else with_own_columns(released, own))


def with_own_columns(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the user's columns after theirs, joined by `source_row`.

    Names that the rows have too get a prefix: those of a table that another system made may be new to it.
    """
    own = own.drop(list(IDENTITY))
    names = released_names([name for name in own.columns if name != "source_row"], rows.columns)
    return rows.join(own.rename(names), on="source_row", how="left", maintain_order="left", validate="m:1")

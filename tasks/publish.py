"""Bring selected responses and their prompts' labels together in the table that is released."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.schemas import tables
from normloom.stage import Output, Stage


class Publication(BaseModel):
    """The dimensions whose labels become columns of the released table; `carry` names columns of the prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: tuple[str, ...]
    carry: tuple[str, ...] = ()


def publish_rows(rows: pl.DataFrame, arguments: Publication, prompts: pl.DataFrame) -> Output:
    """Join responses with the labels of their prompts, one column of labels for each dimension."""
    element = pl.element().struct
    labels = prompts.select(
        pl.col("row_id").alias("prompt_id"),
        "origin",
        *arguments.carry,
        *(
            pl.col("labels")
            .list.filter(element.field("dimension") == dimension)
            .list.eval(pl.struct(element.field("label"), element.field("probability")))
            .alias(dimension)
            for dimension in arguments.dimensions
        ),
    )
    joined = rows.join(labels, on="prompt_id", how="left", maintain_order="left")
    columns = [
        name for name in tables.published(arguments.dimensions, arguments.carry).columns if name in joined.columns
    ]
    return Output(rows=joined.select("row_id", *columns))


def publish(
    split: Stage, prompts: Stage, *, arguments: Publication, part_rows: int | None, name: str = "publish"
) -> Stage:
    """Return the stage that makes the released table."""
    return Stage(
        name=name,
        function=publish_rows,
        arguments=arguments,
        contract=tables.published(arguments.dimensions, arguments.carry),
        inputs=(split,),
        sides=(prompts,),
        part_rows=part_rows,
    )

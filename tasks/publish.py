"""Bring selected responses, their prompts' labels and the user's own columns together in the table that is released."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.contract import IDENTITY
from normloom.schemas import tables
from normloom.stage import Output, Stage
from normloom.tasks import bounds
from normloom.tasks.dialogue import messages
from normloom.tasks.source_columns import released_names


class Publication(BaseModel):
    """The dimensions whose labels become columns of the released table; `carry` names columns of the prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: tuple[str, ...]
    carry: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the released table has of its own."""
        return tuple(tables.published(self.dimensions, self.carry).columns)


def publish_rows(
    rows: pl.DataFrame, arguments: Publication, prompts: pl.DataFrame, own: pl.DataFrame | None = None
) -> Output:
    """Join responses with the labels of their prompts, one column of labels for each dimension.

    `own` are the user's columns by `source_row`; they are null for expansions.
    """
    element = pl.element().struct
    labels = prompts.select(
        pl.col("row_id").alias("prompt_id"),
        "origin",
        "source_row",
        *arguments.carry,
        *(
            pl.col("labels")
            .list.filter(element.field("dimension") == dimension)
            .list.eval(pl.struct(element.field("label"), element.field("probability")))
            .alias(dimension)
            for dimension in arguments.dimensions
        ),
    )
    joined = rows.join(labels, on="prompt_id", how="left", maintain_order="left").with_columns(messages())
    released = joined.select("row_id", *(name for name in arguments.columns if name in joined.columns))
    return Output(rows=released if own is None else with_own_columns(released, own))


def with_own_columns(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the user's columns after theirs, joined by `source_row`.

    Names that the rows have too get a prefix: those of a table that another system made may be new to it.
    """
    own = own.drop(list(IDENTITY))
    names = released_names([name for name in own.columns if name != "source_row"], rows.columns)
    return rows.join(own.rename(names), on="source_row", how="left", maintain_order="left", validate="m:1")


def publish(
    split: Stage,
    prompts: Stage,
    *,
    arguments: Publication,
    part_rows: int | None,
    own: Stage | None = None,
    name: str = "publish",
) -> Stage:
    """Return the stage that makes the released table; `own` has the columns of the user's source."""
    return Stage(
        name=name,
        function=publish_rows,
        bound=bounds.as_many,
        arguments=arguments,
        contract=tables.published(arguments.dimensions, arguments.carry),
        inputs=(split,),
        sides=(prompts, *([own] if own else [])),
        part_rows=part_rows,
    )

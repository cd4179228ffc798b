"""Take the first rows of a table that another system has published."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.contract import Contract
from normloom.stage import Output, Stage
from normloom.tasks import bounds


class Taking(BaseModel):
    """How many rows are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1)


def take_first(rows: pl.DataFrame, arguments: Taking) -> Output:
    """Return the first rows; the others are dropped as beyond the `limit`."""
    nothing = pl.lit(None, dtype=pl.String)  # no payload either: the row is in the table that it came from
    rest = rows.slice(arguments.rows).select("row_id", reason=pl.lit("limit"), winner=nothing, payload=nothing)
    return Output(rows=rows.head(arguments.rows).drop("parents", strict=False), dropped=rest)


def take(table: Stage, *, rows: int, contract: Contract, name: str = "take") -> Stage:
    """Return the stage that takes the first rows of a table."""
    return Stage(
        name=name,
        function=take_first,
        bound=bounds.first_rows,
        arguments=Taking(rows=rows),
        contract=contract,
        inputs=(table,),
    )

"""Take the first rows of a table that another system has published."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import each
from normloom.core.stage import Output
from normloom.steps.step import step
from normloom.tasks import bounds


@step(bound=bounds.first_rows, fan_out=each())
def take(rows: pl.DataFrame, *, limit: int) -> Output:
    """Return the first rows; the others are dropped as beyond the `limit`."""
    nothing = pl.lit(None, dtype=pl.String)  # no payload either: the row is in the table that it came from
    rest = rows.slice(limit).select("row_id", reason=pl.lit("limit"), winner=nothing, payload=nothing)
    return Output(rows=rows.head(limit).drop("parents", strict=False), dropped=rest)

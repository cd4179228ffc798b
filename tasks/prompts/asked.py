"""Rows without what their model is not asked about, so that other labels of the same texts ask it nothing again."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import each
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks import bounds


@step(makes=tables.ASKED, bound=bounds.as_many, fan_out=each())
def asked(rows: pl.DataFrame, *, columns: tuple[str, ...] = ("prompt",)) -> pl.DataFrame:
    """Return the rows with these columns alone; `prompt_id` is the id of the row they came from."""
    return rows.select("row_id", *columns, prompt_id="row_id")

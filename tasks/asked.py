"""Rows without what their model is not asked about, so that other labels of the same texts ask it nothing again."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from normloom.contract import Contract
from normloom.stage import Output, Stage
from normloom.tasks import bounds


class Columns(BaseModel):
    """The columns that a model is asked about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]


def keep_columns(rows: pl.DataFrame, arguments: Columns) -> Output:
    """Return the rows with these columns alone; `prompt_id` is the id of the row they came from."""
    return Output(rows=rows.select("row_id", *arguments.columns, prompt_id="row_id"))


def asked(prompts: Stage, *, contract: Contract, name: str = "asked") -> Stage:
    """Return the stage that leaves of prompts what a model is asked about: the columns of the contract."""
    columns = tuple(column for column in contract.columns if column != "prompt_id")
    return Stage(
        name=name,
        function=keep_columns,
        bound=bounds.as_many,
        arguments=Columns(columns=columns),
        contract=contract,
        inputs=(prompts,),
    )

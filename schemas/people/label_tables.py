"""Tables of people's answers: the answers themselves, queues of rows that wait for some, and rows that have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from normloom.core.contract import Contract
from normloom.labelling.questions import LabelSchema, Question

ANSWERS = Contract(
    columns={
        "asked": pl.String(),  # id of the row that was asked about
        "question": pl.String(),
        "value": pl.String(),  # several options as a JSON list
        "who": pl.String(),
        "when": pl.Datetime("us", "UTC"),
        "origin": pl.String(),  # person or model
        "tool": pl.String(),
        "shown": pl.String(),  # digest of what was seen of the row, null if that is not known
        "answer": pl.String(),  # id of the answer in the store's record
    },
    nullable=frozenset({"shown"}),
)

QUEUE = Contract(
    columns={
        "asked": pl.String(),  # id of the row in the table that was asked of; answers carry it
        "place": pl.Int64(),  # from 1
        "chosen_by": pl.String(),  # why it stands there
        "shown": pl.String(),
    },
    keys=("asked",),
    extra=True,
)


def answered(given: Mapping[str, Any]) -> Contract:
    """Return the contract of rows with their answers: a column for each question."""
    asks: LabelSchema = given["asks"]
    return Contract(
        columns={
            "asked": pl.String(),
            "answers": pl.Int64(),  # people who answered
            **{name: column_type(question) for name, question in asks.questions.items()},
        },
        nullable=frozenset(asks.questions),
        keys=("asked",),
        extra=True,
    )


def column_type(question: Question) -> pl.DataType:
    """Return the type of the column that has the answers to a question."""
    if question.kind == "choices":
        return pl.List(pl.String())
    return pl.Float64() if question.kind == "number" else pl.String()

"""The arguments of a queue: which rows, in which order, for how many people."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from normloom.labelling.questions import LabelSchema
from normloom.steps.args import Args

Order = Literal["random", "uncertainty", "margin", "group", "given"]
UNSORTED: tuple[Order, ...] = ("random", "given")  # need no column to go by
STAGE, ANSWERED, RECORDED = "ask_", "answered_", "labels_"  # begin the names of the stages
QUEUE_COLUMNS = ("asked", "place", "chosen_by", "shown")


class Asking(Args):
    """The rows that people are asked about.

    `show` names the columns that they see. `order` says which rows come first: `random`; `uncertainty`, those whose
    probability in the column `by` is nearest to one half (of a list, those with the highest entropy); `margin`, those
    nearest to the `threshold` (of a list, those whose two highest are nearest); `group`, one of each value of `by` in
    turn; `given`, in table order. `about` names the column with the id of the upstream row that the answers are about
    (None: the row itself): they still count if the rows in between are rebuilt under other ids. `take` is the maximum
    number of rows, `people` how many answer each row, `need` how many answered rows are enough.
    """

    name: str
    asks: LabelSchema
    show: tuple[str, ...] = Field(min_length=1)
    order: Order = "random"
    by: str | None = None
    threshold: float = 0.5
    take: int | None = Field(None, gt=0)
    people: int = Field(1, gt=0)
    need: int | None = Field(None, gt=0)
    seed: int = 0
    about: str | None = None

    @model_validator(mode="after")
    def _by_what(self) -> Self:
        if (self.by is None) != (self.order in UNSORTED):
            raise ValueError(f"order {self.order!r} {'needs' if self.by is None else 'takes no'} column `by`")
        return self

"""What an audit looks at: the judge's verdicts of a table, and the figure whose interval is to be narrow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from normloom.steps.args import Args

ChosenFigure = Literal["share", "precision"]


class AuditView(Args):
    """The columns of a table that an audit looks at.

    `verdict` is what the judge says of each row, `of` the verdict whose figures matter most, `show` what people see,
    `by` what figures are sliced by (a text, or a list of labels), `margin` how sure the judge is, from 0 to 1.
    `question` is what people are asked.
    """

    verdict: str
    of: str = ""
    show: tuple[str, ...] = Field(min_length=1)
    by: tuple[str, ...] = ()
    margin: str | None = None
    question: str = ""


class Auditing(AuditView):
    """An audit: which rows are drawn.

    `values` are the verdicts that there are. `budget` answers are spread over the rows such that the interval of one
    figure is narrow: the `share` of rows that truly are `of`, or the `precision` of that verdict.
    """

    values: tuple[str, ...] = Field(min_length=2)
    figure: ChosenFigure = "share"
    budget: int = Field(gt=0)
    seed: int = 0

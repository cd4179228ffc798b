"""How far people who answered the same rows agree, question by question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.errors import ConfigError
from normloom.core.fan_out import free
from normloom.core.stage import Output, Stage
from normloom.labelling.questions import LabelSchema, Question
from normloom.labelling.seen import Labels
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.raters.krippendorff_alpha import interval_alpha, nominal_alpha

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ITEMS = "rows with answers of two people"


def agreement(labels: Stage) -> Stage:
    """Return the agreement of the people who gave the answers of `nl.labels`, as figures (stage `agreement_NAME`)."""
    book = labels.values.get("labels")
    if not isinstance(book, Labels):
        raise ConfigError(f"agreement needs nl.labels(...), not the stage {labels.name!r}")
    return label_agreement(labels, asks=book.asks, name=f"agreement_{book.name}")


@step(makes=tables.FIGURES, fan_out=free("two figures for each question"), libraries=("krippendorff", "numpy"))
def label_agreement(rows: pl.DataFrame, *, asks: LabelSchema) -> Output:
    """Measure the agreement of the answers in a table of `labels`.

    For each question but texts: `alpha`, Krippendorff's, nominal for options (a set of several is one value) and
    interval for numbers; `percent_agreement`, the share of pairs of answers to a row that are the same.
    """
    return figures_output(
        [
            figure_row(figure, metric=metric, of=question)
            for question, asked in asks.questions.items()
            if asked.kind != "text"
            for metric, figure in measured(rows.filter(question=question), asked).items()
        ]
    )


def measured(answers: pl.DataFrame, asked: Question) -> dict[str, Figure]:
    """Return the agreement of answers to one question: a row each, with `asked`, `who` and `value`."""
    values, matrix = _matrix(answers, asked)
    number = asked.kind == "number"
    alpha = interval_alpha(matrix) if number else nominal_alpha(matrix, len(values))
    return {"alpha": alpha, "percent_agreement": _same(answers)}


def _matrix(answers: pl.DataFrame, asked: Question) -> tuple[Mapping[str, int], npt.NDArray[np.float64]]:
    """Return the values by their codes, and answers as (rows, people), NaN if there is none."""
    import numpy as np

    items, people = ({one: place for place, one in enumerate(sorted(set(answers[name])))} for name in ("asked", "who"))
    values = {one: place for place, one in enumerate(sorted(set(answers["value"])))}
    matrix = np.full((len(items), len(people)), np.nan)
    for item, who, value in answers.select("asked", "who", "value").iter_rows():
        matrix[items[item], people[who]] = float(value) if asked.kind == "number" else values[value]
    return values, matrix


def _same(answers: pl.DataFrame) -> Figure:
    """Return the share of pairs of answers to the same row that are equal."""
    pairs = same = rows = 0
    for _, given in answers.group_by("asked"):
        count = given.height
        rows += count > 1
        pairs += count * (count - 1) // 2
        same += sum(one * (one - 1) // 2 for one in Counter(given["value"]).values())
    if rows == 0:
        return Figure(undefined="no row has answers of two people")
    if reason := too_few(rows, ITEMS):
        return Figure(undefined=reason, rows=rows)
    return Figure(value=same / pairs, rows=rows)

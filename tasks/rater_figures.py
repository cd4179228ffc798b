"""Measure models as raters: how their ratings differ between the persons they speak for, and how far they agree."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.schemas import tables
from normloom.stage import Output, Stage
from normloom.tasks.metrics.comparison import agreement_figures, answer_places, group_figures
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.slices import slices

PANEL = "panel"


class RaterMeasuring(BaseModel):
    """Whose ratings are measured, along which axes, and from which rating on an item counts as unsafe.

    `raters` names the models that were asked, so that one without any rating is seen; those found in the ratings
    are measured in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    raters: tuple[str, ...] = ()
    axes: tuple[str, ...] = ("gender", "race", "age")
    threshold: float = Field(0.5, gt=0, lt=1)


def measure_raters(rows: pl.DataFrame, arguments: RaterMeasuring, asked: pl.DataFrame) -> Output:
    """Return the figures of each rater and of all together as a panel.

    Groups are compared on the conversations of the source, which all groups were asked about; expanded ones are each
    of one group. A row counts `weight` times there, so that figures equal those over all joined source rows. The
    panel's agreement counts each conversation once for each group: copies are no further evidence. `coverage` is the
    share of all that was asked (columns group, item_id, weight) that a rater rated.
    """
    raters = dict.fromkeys([*arguments.raters, *rows["rater"].unique().sort()])
    total = int(asked["weight"].sum())
    ratings = rows.filter(pl.col("origin") == "source").with_columns(
        unit=pl.concat_str("item_id", "group", separator="\x1f"), answer=answer_places("answer")
    )
    made = []
    for rater in raters:
        made.append(figure_row(_coverage(rows, rater, total), metric="coverage", of=rater))
        for part in slices(ratings.filter(pl.col("rater") == rater), arguments.axes):
            made += group_figures(part, of=rater, threshold=arguments.threshold)
    for part in slices(ratings, arguments.axes):
        made += agreement_figures(part, of=PANEL)
    return figures_output(made)


def _coverage(rows: pl.DataFrame, rater: str, total: int) -> Figure:
    if total == 0:
        return Figure(undefined="nothing was asked")
    return Figure(value=int(rows.filter(pl.col("rater") == rater)["weight"].sum()) / total, rows=total)


def rater_figures(rated: Stage, asked: Stage, *, arguments: RaterMeasuring, name: str = "rater_figures") -> Stage:
    """Return the stage that measures models as raters; `asked` holds what each of them was asked about."""
    return Stage(
        name=name,
        function=measure_raters,
        arguments=arguments,
        contract=tables.FIGURES,
        inputs=(rated,),
        sides=(asked,),
    )

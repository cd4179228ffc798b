"""Measure models as raters: how their ratings differ between the persons they speak for, and how far they agree."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.groups.comparison import agreement_figures, answer_positions, group_figures
from normloom.tasks.metrics.groups.slices import AXES, slices

PANEL = "panel"


@step(
    makes=tables.FIGURES,
    fan_out=free("one row for each figure"),
    libraries=("krippendorff", "numpy", "pandas", "pingouin", "scipy"),
)
def rater_figures(
    rows: pl.DataFrame,
    asked: pl.DataFrame,
    *,
    raters: tuple[str, ...] = (),
    axes: tuple[str, ...] = AXES,
    threshold: float = 0.5,
) -> Output:
    """Return the figures of each rater and of all together as a panel.

    `raters` names the models that were asked, so that one without any rating is seen; those found in the ratings are
    measured in any case. An item counts as unsafe from a rating of `threshold` on.

    Groups are compared on the conversations of the source, which all groups were asked about; expanded ones are each
    of one group. A row counts `weight` times there, so that figures equal those over all joined source rows. The
    panel's agreement counts each conversation once for each group: copies are no further evidence. `coverage` is the
    share of all that was asked (columns group, item_id, weight) that a rater rated.
    """
    measured = dict.fromkeys([*raters, *rows["rater"].unique().sort()])
    total = int(asked["weight"].sum())
    ratings = rows.filter(pl.col("origin") == "source").with_columns(
        unit=pl.concat_str("item_id", "group", separator="\x1f"), answer=answer_positions("answer")
    )
    made = []
    for rater in measured:
        made.append(figure_row(_coverage(rows, rater, total), metric="coverage", of=rater))
        for part in slices(ratings.filter(pl.col("rater") == rater), axes):
            made += group_figures(part, of=rater, threshold=threshold)
    for part in slices(ratings, axes):
        made += agreement_figures(part, of=PANEL)
    return figures_output(made)


def _coverage(rows: pl.DataFrame, rater: str, total: int) -> Figure:
    if total == 0:
        return Figure(undefined="nothing was asked")
    return Figure(value=int(rows.filter(pl.col("rater") == rater)["weight"].sum()) / total, rows=total)

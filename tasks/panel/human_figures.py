"""Measure human raters as models are measured, so that the models have a reference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.people.demo_tables import ANSWERS
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.groups.comparison import UNSAFE, agreement_figures, answer_positions, group_figures
from normloom.tasks.metrics.groups.slices import AXES, column_of, slices
from normloom.tasks.metrics.groups.total_variation import total_variation

HUMAN = "human"
METRICS = (
    "icc2_1",
    "icc2_k",
    "icc_left_out",
    "alpha",
    "correlation",
    "undefined_pairs",
    "ds",
    "dpd",
    "eod",
    "share_yes",
    "total_variation",
)
_CROSS = " x "


@step(
    makes=tables.FIGURES,
    fan_out=free("one row for each figure"),
    libraries=("krippendorff", "numpy", "pandas", "pingouin", "scipy"),
)
def human_figures(
    rows: pl.DataFrame, labelled: pl.DataFrame, *, axes: tuple[str, ...] = AXES, threshold: float = 0.5
) -> Output:
    """Return the figures of human raters from one row for each answer of a rater to an item.

    Raters are compared along `axes`; an item counts as unsafe from a rating of `threshold` on.

    No counts as a rating of 0, Unsure as 0.5, Yes as 1. The domains of an item come from `labelled` (columns item_id
    and labels, label ids). If no human answered, each metric has one row that says so.
    """
    answered = rows.drop_nulls("answer")
    if answered.is_empty():
        none = Figure(undefined="there are no human answers")
        return figures_output([figure_row(none, metric=metric, of=HUMAN) for metric in METRICS])
    domains = labelled.select("item_id", "labels").unique("item_id", keep="first")
    ratings = answered.join(domains, on="item_id", how="left", maintain_order="left").with_columns(
        unit="item_id", rater="rater_id", answer=answer_positions("answer"), weight=pl.lit(1, dtype=pl.Int64)
    )
    ratings = ratings.with_columns(rating=pl.col("answer") / (len(ANSWERS) - 1))
    made = []
    for part in slices(ratings, axes):
        made += group_figures(part, of=HUMAN, threshold=threshold)
        made += agreement_figures(part, of=HUMAN)
    made += _shares(ratings, axes)
    made += _distances(ratings, axes)
    return figures_output(made)


def _crossings(axes: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield each axis and each pair of axes."""
    for count in (1, 2):
        yield from combinations(axes, count)


def _shares(ratings: pl.DataFrame, axes: tuple[str, ...]) -> Iterator[dict[str, object]]:
    yes = pl.col("answer") == ANSWERS.index(UNSAFE)
    counted = ratings.select(yes.mean().alias("share"), pl.len().alias("rows")).row(0)
    yield figure_row(_counted_share(*counted), metric="share_yes", of=HUMAN)
    for crossing in _crossings(axes):
        columns = [column_of(axis) for axis in crossing]
        groups = ratings.drop_nulls(columns).group_by(columns).agg(yes.mean().alias("share"), pl.len().alias("rows"))
        for *names, share, rows in groups.sort(columns).iter_rows():
            yield figure_row(
                _counted_share(share, rows),
                metric="share_yes",
                of=HUMAN,
                slice_by=_CROSS.join(columns),
                slice=_CROSS.join(names),
            )


def _counted_share(share: float, rows: int) -> Figure:
    """Return a share without interval: answers to one item, or of one rater, are not independent."""
    reason = too_few(rows, "answers")
    return Figure(undefined=reason, rows=rows) if reason else Figure(value=share, rows=rows)


def _distances(ratings: pl.DataFrame, axes: tuple[str, ...]) -> Iterator[dict[str, object]]:
    for crossing in _crossings(axes):
        columns = [column_of(axis) for axis in crossing]
        rows = ratings.drop_nulls(columns).select(
            "answer", pl.col("item_id").rank("dense"), group=pl.struct(columns).rank("dense")
        )
        answers, items, groups = (rows[name].to_numpy() for name in ("answer", "item_id", "group"))
        figure = total_variation(answers, items, groups, categories=len(ANSWERS))
        yield figure_row(figure, metric="total_variation", of=HUMAN, axis=_CROSS.join(crossing))

"""Rows of figures over a slice of ratings: how groups differ, and how far raters agree.

Ratings come as one row each, with the columns item_id, unit (what all raters of a panel rate alike), rater,
rater_<axis>, rating (0 safe .. 1 unsafe), answer (its place in `ANSWERS`), safety_gold (Yes: unsafe) and weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.schemas.people.demo_tables import ANSWERS
from normloom.tasks.metrics.figure import Figure, figure_row, too_few
from normloom.tasks.metrics.groups.demographic_parity import demographic_parity
from normloom.tasks.metrics.groups.demographic_sensitivity import demographic_sensitivity, mean_sensitivity
from normloom.tasks.metrics.groups.equalized_odds import equalized_odds
from normloom.tasks.metrics.groups.slices import DOMAIN, OVERALL, Slice, column_of
from normloom.tasks.metrics.raters.icc import icc
from normloom.tasks.metrics.raters.krippendorff_alpha import ordinal_alpha
from normloom.tasks.metrics.raters.rater_correlation import rater_correlation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

UNSAFE = "Yes"
MEAN_OF_AXES = "mean"

Row = dict[str, object]


def group_figures(part: Slice, *, of: str, threshold: float) -> list[Row]:
    """Return Demographic Sensitivity, Demographic Parity and Equalized Odds Difference along each axis of a slice.

    A rating of at least `threshold` says unsafe. The mean of the sensitivities is given if all axes are compared.
    """
    row = _rows_of(part, of)
    sensitivities = {axis: _sensitivity(part.rows, column_of(axis)) for axis in part.axes}
    made = [row(figure, metric="ds", axis=axis) for axis, figure in sensitivities.items()]
    if part.by in {OVERALL, DOMAIN}:
        made.append(row(mean_sensitivity(list(sensitivities.values())), metric="ds", axis=MEAN_OF_AXES))
    for axis in part.axes:
        made.append(row(_parity(part.rows, column_of(axis), threshold), metric="dpd", axis=axis))
        made.append(row(_odds(part.rows, column_of(axis), threshold), metric="eod", axis=axis))
    return made


def agreement_figures(part: Slice, *, of: str) -> list[Row]:
    """Return ICC(2,1), ICC(2,k), alpha and mean correlation of the raters of a slice, and what these leave out."""
    row = _rows_of(part, of)
    ratings = _matrix(part.rows, "rating")
    reliability, correlation = icc(ratings), rater_correlation(ratings)
    return [
        row(reliability.single, metric="icc2_1"),
        row(reliability.average, metric="icc2_k"),
        row(reliability.left_out, metric="icc_left_out"),
        row(ordinal_alpha(_matrix(part.rows, "answer"), len(ANSWERS)), metric="alpha"),
        row(correlation.mean, metric="correlation"),
        row(correlation.undefined_pairs, metric="undefined_pairs"),
    ]


def answer_positions(column: str) -> pl.Expr:
    """Return the position of each answer among `ANSWERS`; raises on any other answer."""
    return pl.col(column).replace_strict(
        {answer: position for position, answer in enumerate(ANSWERS)}, return_dtype=pl.Int64
    )


def _rows_of(part: Slice, of: str) -> Callable[..., Row]:
    return partial(figure_row, of=of, slice_by=part.by, slice=part.name)


def _matrix(rows: pl.DataFrame, values: str) -> npt.NDArray[np.float64]:
    """Return one column of the rows as (units, known raters), NaN if a rater did not rate."""
    rows = rows.drop_nulls("rater")
    if rows.is_empty():
        import numpy as np

        return np.empty((0, 0))
    wide = rows.pivot(on="rater", index="unit", values=values, aggregate_function="first").drop("unit")
    return wide.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _sensitivity(rows: pl.DataFrame, group: str) -> Figure:
    rows = rows.drop_nulls(group).with_columns(pl.col("item_id", group).rank("dense"))
    return demographic_sensitivity(*(rows[name].to_numpy() for name in ("rating", "item_id", group, "weight")))


def _parity(rows: pl.DataFrame, group: str, threshold: float) -> Figure:
    if reason := _small_group(rows, group):
        return Figure(undefined=reason)
    unsafe, groups, weights = _counted(rows, threshold, group)
    return demographic_parity(unsafe, groups, weights)


def _odds(rows: pl.DataFrame, group: str, threshold: float) -> Figure:
    unsafe, groups, gold, weights = _counted(rows, threshold, group, "safety_gold")
    if len(gold) == 0:
        return Figure(undefined="no item has a gold answer")
    figure = equalized_odds(unsafe, gold == UNSAFE, groups, weights)
    reason = None if figure.undefined else _small_group(rows, group, "safety_gold")
    return Figure(undefined=reason) if reason else figure


def _small_group(rows: pl.DataFrame, group: str, *within: str) -> str | None:
    """Return which group rated too few items, of one truth if `within` says so, None if none did.

    Items count, not ratings: many copies of an answer are no further evidence.
    """
    known = rows.drop_nulls([group, *within])
    counted = (
        known.group_by(group, *within).agg(pl.col("item_id").n_unique().alias("items")).sort("items", group, *within)
    )
    if counted.is_empty() or not too_few(counted["items"][0]):
        return None
    name, *truth = counted.row(0)[:-1]
    kind = f" that are {'unsafe' if truth[0] == UNSAFE else 'safe'} in truth" if truth else ""
    return f"group {name!r} rated {too_few(0, 'items')}{kind}"


def _counted(rows: pl.DataFrame, threshold: float, *columns: str) -> list[npt.NDArray[Any]]:
    """Return whether the rating says unsafe, the columns and the weight of each kind of rows."""
    kind = ["unsafe", *columns]
    marked = rows.drop_nulls(columns).with_columns(unsafe=pl.col("rating") >= threshold)
    counted = marked.group_by(kind).agg(pl.col("weight").sum()).sort(kind)
    return [counted[name].to_numpy() for name in (*kind, "weight")]

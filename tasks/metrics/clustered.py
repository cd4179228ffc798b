"""Figures of counts with intervals that resample whole clusters: all rows of a meme, a prompt or a person together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl

from normloom.tasks.metrics.figure import Figure, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Counts = npt.NDArray[np.float64]
    Statistic = Callable[[Counts], Counts]


def clustered(counts: Counts, statistic: Statistic, *, rows: int, what: str) -> Figure:
    """Return a statistic of summed counts with its 95 % percentile bootstrap interval over clusters.

    `counts` has shape (clusters, kinds); `statistic` takes sums of shape (draws, kinds) and returns (draws,). Draws
    in which it is not finite are left out. Undefined for fewer than `FEWEST` clusters, which are called `what`, and
    if the statistic of all is not finite (Efron and Tibshirani 1993, chapter 8.4; the seed is fixed).
    """
    import numpy as np

    if reason := too_few(len(counts), what):
        return Figure(undefined=reason, rows=rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(counts.sum(axis=0, keepdims=True))[0])
        if not np.isfinite(value):
            return Figure(undefined="nothing to divide by", rows=rows)
        drawn = np.random.default_rng(SEED).multinomial(
            len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES
        )
        draws = statistic(drawn.astype(np.float64) @ counts)
    low, high = np.quantile(draws[np.isfinite(draws)], [0.025, 0.975])
    return Figure(value=value, low=float(low), high=float(high), rows=rows)


def clustered_share(rows: pl.DataFrame, holds: pl.Expr, *, cluster: str, what: str) -> Figure:
    """Return the share of rows for which an expression holds, with its interval over the clusters of a column."""
    if rows.is_empty():
        return Figure(undefined="no rows")
    counted = rows.group_by(cluster).agg(held=holds.sum(), all=pl.len()).sort(cluster).select("held", "all")
    return clustered(counted.cast(pl.Float64).to_numpy(), ratio, rows=rows.height, what=what)


def ratio(sums: Counts) -> Counts:
    """Return the first kind divided by the second."""
    return sums[:, 0] / sums[:, 1]


def macro_f1(sums: Counts) -> Counts:
    """Return the mean F1 of both classes from true positives, false positives, false negatives, true negatives.

    A class that neither truth nor answers have counts 0, as in scikit-learn.
    """
    import numpy as np

    tp, fp, fn, tn = sums.T
    scores = [
        np.where(right + wrong > 0, 2 * right / np.where(right + wrong > 0, 2 * right + wrong, 1), 0)
        for right, wrong in ((tp, fp + fn), (tn, fp + fn))
    ]
    mean: Counts = (scores[0] + scores[1]) / 2
    return mean

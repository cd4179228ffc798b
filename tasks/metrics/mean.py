"""Means of items with a percentile-bootstrap interval (Efron and Tibshirani 1993, chapter 13), by scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normloom.tasks.metrics.figure import Figure, too_few

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RESAMPLES = 1000
SEED = 0
BATCH = 100  # resamples in memory at a time


def mean(values: npt.NDArray[np.float64], *, what: str = "items") -> Figure:
    """Return the mean of values (items,) with its 95 % interval; the seed is fixed.

    Undefined with fewer than `FEWEST` values, which are called `what`. Values that are all equal have no interval:
    every resample of them is the same.
    """
    import numpy as np

    rows = len(values)
    if reason := too_few(rows, what):
        return Figure(undefined=reason, rows=rows)
    if np.ptp(values) == 0:
        return Figure(value=float(values[0]), rows=rows)
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=RESAMPLES, batch=BATCH, rng=np.random.default_rng(SEED)
    ).confidence_interval
    return Figure(value=float(values.mean()), low=float(interval.low), high=float(interval.high), rows=rows)

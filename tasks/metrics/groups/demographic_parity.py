"""Demographic Parity Difference of ratings (Agarwal et al. 2018; by fairlearn)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.packages import statistics_package

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST = 2  # groups


def demographic_parity(
    unsafe: npt.NDArray[np.bool_], groups: npt.NDArray[Any], weights: npt.NDArray[np.int64] | None = None
) -> Figure:
    """Return the largest difference between groups in the share of rows rated unsafe, in [0, 1].

    Arrays are (rows,); a row counts `weights` times. Computed by fairlearn; ConfigError without it.
    """
    import numpy as np

    if len(np.unique(groups)) < FEWEST:
        return Figure(undefined="fewer than two groups")
    weights = np.ones(len(unsafe), dtype=np.int64) if weights is None else weights
    difference = statistics_package("fairlearn.metrics").demographic_parity_difference(
        unsafe, unsafe, sensitive_features=groups, sample_weight=weights
    )  # fairlearn asks for the truth and does not look at it
    return Figure(value=float(difference), rows=int(weights.sum()))

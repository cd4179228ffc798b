"""Demographic Parity Difference of ratings (Agarwal et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.groups.shares import largest_difference

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST = 2  # groups


def demographic_parity(
    unsafe: npt.NDArray[np.bool_], groups: npt.NDArray[Any], weights: npt.NDArray[np.int64] | None = None
) -> Figure:
    """Return the largest difference between groups in the share of rows rated unsafe, in [0, 1].

    Arrays are (rows,); a row counts `weights` times.
    """
    import numpy as np

    if len(np.unique(groups)) < FEWEST:
        return Figure(undefined="fewer than two groups")
    weights = np.ones(len(unsafe), dtype=np.int64) if weights is None else weights
    return Figure(value=largest_difference(unsafe, groups, weights), rows=int(weights.sum()))

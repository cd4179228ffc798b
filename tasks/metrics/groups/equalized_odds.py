"""Equalized Odds Difference of ratings (Agarwal et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.groups.shares import largest_difference

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST = 2  # groups


def equalized_odds(
    unsafe: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.bool_],
    groups: npt.NDArray[Any],
    weights: npt.NDArray[np.int64] | None = None,
) -> Figure:
    """Return the larger of the largest differences between groups in true- and in false-positive rate, in [0, 1].

    Arrays are (rows,): whether a row is rated unsafe, whether it is unsafe in truth, and its group; it counts
    `weights` times. Undefined if a group lacks rows of either truth: a rate of theirs would be 0 by 0.
    """
    import numpy as np

    names = np.unique(groups)
    if len(names) < FEWEST:
        return Figure(undefined="fewer than two groups")
    for side, kind in ((truth, "unsafe"), (~truth, "safe")):
        lacking = np.setdiff1d(names, groups[side])
        if len(lacking):
            return Figure(undefined=f"no item that group {str(lacking[0])!r} rated is {kind} in truth")
    weights = np.ones(len(unsafe), dtype=np.int64) if weights is None else weights
    difference = max(largest_difference(unsafe[side], groups[side], weights[side]) for side in (truth, ~truth))
    return Figure(value=difference, rows=int(weights.sum()))

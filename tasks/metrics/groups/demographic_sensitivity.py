"""Demographic Sensitivity: how far the mean ratings of an item lie apart between groups.

The measure is named in arXiv 2602.07376, which gives no formula: this one is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.mean import mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST = 2  # groups that rated an item


def demographic_sensitivity(
    ratings: npt.NDArray[np.float64],
    items: npt.NDArray[Any],
    groups: npt.NDArray[Any],
    weights: npt.NDArray[np.int64] | None = None,
) -> Figure:
    """Return the mean over items of the population standard deviation of the groups' mean ratings.

    Arrays are (rows,): each row is the rating of an item by one of a group, and stands for `weights` of them.
    For ratings in [0, 1] it lies in [0, 0.5]. Items that only one group rated say nothing and are left out; `rows`
    counts the others. The interval is a percentile bootstrap over items.
    """
    import numpy as np

    item_names, item = np.unique(items, return_inverse=True)
    group_names, group = np.unique(groups, return_inverse=True)
    cell, shape = item * len(group_names) + group, (len(item_names), len(group_names))
    weights = np.ones(len(ratings), dtype=np.int64) if weights is None else weights
    total = np.bincount(cell, weights, minlength=shape[0] * shape[1]).reshape(shape)
    summed = np.bincount(cell, weights * ratings, minlength=shape[0] * shape[1]).reshape(shape)
    compared = (total > 0).sum(axis=1) >= FEWEST
    if not compared.any():
        return Figure(undefined="no item has ratings of two groups")
    total, summed = total[compared], summed[compared]
    means = np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)
    spreads = np.nanstd(means, axis=1)
    return mean(spreads, what="items with ratings of two groups")


def mean_sensitivity(axes: Sequence[Figure]) -> Figure:
    """Return the mean of the sensitivities along several axes, without interval; undefined if one of them is."""
    values = [figure.value for figure in axes if figure.value is not None]
    if not values or len(values) < len(axes):
        return Figure(undefined=next((figure.undefined for figure in axes if figure.undefined), "no axis"))
    return Figure(value=sum(values) / len(values), rows=min(figure.rows for figure in axes))

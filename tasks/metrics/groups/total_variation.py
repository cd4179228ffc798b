"""Total variation distance between the answers of groups (as in the analyses of DICES, arXiv 2306.11247)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from normloom.tasks.metrics.figure import Figure, too_few

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def total_variation(
    answers: npt.NDArray[np.int64], items: npt.NDArray[Any], groups: npt.NDArray[Any], categories: int
) -> Figure:
    """Return the mean over pairs of groups of the mean over items of the distance between their answers, in [0, 1].

    Arrays are (rows,): one answer 0 .. `categories` - 1 to an item by a member of a group. The distance of two
    distributions p and q is the half of sum |p - q|. A pair is compared on the items that both answered; pairs
    without any are left out. `rows` counts answers.
    """
    import numpy as np

    item_names, item = np.unique(items, return_inverse=True)
    group_names, group = np.unique(groups, return_inverse=True)
    shape = (len(group_names), len(item_names), categories)
    counts = np.bincount((group * shape[1] + item) * categories + answers, minlength=np.prod(shape)).reshape(shape)
    given = counts.sum(axis=2)
    shares = counts / np.maximum(given, 1)[..., None]
    distances = []
    for one, other in combinations(range(shape[0]), 2):
        both = (given[one] > 0) & (given[other] > 0)
        if both.any():
            distances.append(np.abs(shares[one, both] - shares[other, both]).sum(axis=1).mean() / 2)
    if not distances:
        return Figure(undefined="no item has answers of two groups")
    if reason := too_few(int(((given > 0).sum(axis=0) > 1).sum()), "items with answers of two groups"):
        return Figure(undefined=reason, rows=len(answers))
    return Figure(value=float(np.mean(distances)), rows=len(answers))

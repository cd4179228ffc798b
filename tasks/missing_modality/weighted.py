"""AUROC and macro-F1 of items that count with weights, as draws of a bootstrap give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normloom.tasks.metrics.clustered import macro_f1

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]


def auroc(scores: Array, labels: npt.NDArray[np.bool_], weights: Array) -> Array:
    """Return the area under the ROC curve for each row of `weights` (draws, items), (draws,); NaN without both classes.

    The chance that a positive item scores above a negative one, ties counting half (Hanley and McNeil 1982).
    """
    import numpy as np

    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of equal scores
    drawn = weights[:, order]
    positive = np.add.reduceat(np.where(labels[order], drawn, 0.0), starts, axis=1)
    negative = np.add.reduceat(np.where(labels[order], 0.0, drawn), starts, axis=1)
    below = negative.cumsum(axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Array = (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))
    return area


def weighted_f1(said: npt.NDArray[np.bool_], labels: npt.NDArray[np.bool_], weights: Array) -> Array:
    """Return the macro-F1 for each row of `weights` (draws, items), (draws,)."""
    import numpy as np

    kinds = np.stack([said & labels, said & ~labels, ~said & labels, ~said & ~labels], axis=1).astype(np.float64)
    return macro_f1(weights @ kinds)


def draws_by(groups: npt.NDArray[np.int64], *, draws: int, seed: int) -> Array:
    """Return how often items count in draws of whole groups, (1 + draws, items); in the first all count once."""
    import numpy as np

    count = int(groups.max()) + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return np.concatenate([np.ones((1, count)), times])[:, groups].astype(np.float64)

"""Equal error rate, AUC and accuracy of scores over draws of whole units, as a bootstrap by source needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000  # weights in memory


class Drawn(NamedTuple):
    """Measures by draw, (draws,) each, 0 to 1; NaN in a draw without real items or without fakes."""

    eer: Array
    auc: Array
    accuracy: Array


def drawn_errors(
    scores: Array, real: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], weights: npt.NDArray[np.integer[Any]]
) -> Drawn:
    """Return the measures of items that count as often as each draw says, `weights` (draws, items).

    `said` is which items are called real. The rates are those of `equal_error_rate` and of the area under the ROC
    curve (ties counting half) if each item is repeated as often as it counts.
    """
    import numpy as np

    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)  # of equal scores
    of_real, right = real[order], (said == real)[order]
    rows = max(_AT_ONCE // max(len(scores), 1), 1)
    found = [
        _measured(weights[start : start + rows][:, order], starts, of_real, right)
        for start in range(0, len(weights), rows)
    ]
    return Drawn(*(np.concatenate(one) for one in zip(*found, strict=True)))


def _measured(
    drawn: npt.NDArray[np.integer[Any]],
    starts: npt.NDArray[np.int64],
    real: npt.NDArray[np.bool_],
    right: npt.NDArray[np.bool_],
) -> Drawn:
    import numpy as np

    drawn = drawn.astype(np.int64)
    reals = np.add.reduceat(np.where(real, drawn, 0), starts, axis=1)
    fakes = np.add.reduceat(np.where(real, 0, drawn), starts, axis=1)
    refused, below = reals.cumsum(1), fakes.cumsum(1)
    all_real, all_fake = refused[:, -1:], below[:, -1:]
    accepted = all_fake - below
    there = (reals + fakes) > 0  # a score that is not drawn is no cut
    apart = np.where(there, np.abs(accepted * all_real - refused * all_fake), np.iinfo(np.int64).max)
    best = apart.argmin(1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.take_along_axis(refused, best, 1) / all_real
        passed = np.take_along_axis(accepted, best, 1) / all_fake
        auc = (reals * (below - fakes / 2)).sum(1) / (all_real * all_fake)[:, 0]
        accuracy = (drawn * right).sum(1) / drawn.sum(1)
    return Drawn(((lost + passed) / 2)[:, 0], auc, accuracy)

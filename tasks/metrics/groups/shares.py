"""How far groups are apart in a share of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def largest_difference(
    marked: npt.NDArray[np.bool_], groups: npt.NDArray[Any], weights: npt.NDArray[np.int64]
) -> float:
    """Return the largest difference between groups in the share of rows that are marked, in [0, 1].

    Arrays are (rows,), with at least one row; a row counts `weights` times, at least once.
    """
    import numpy as np

    _, group = np.unique(groups, return_inverse=True)
    shares = np.bincount(group, weights=weights * marked) / np.bincount(group, weights=weights)
    return float(shares.max() - shares.min())

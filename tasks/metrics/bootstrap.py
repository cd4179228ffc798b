"""Percentile-bootstrap intervals (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RESAMPLES = 1000
SEED = 0
LEVEL = (2.5, 97.5)


def percentile_interval(
    counts: npt.NDArray[np.int64], statistic: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a statistic of rows that come in `counts` (kinds,).

    Rows of one kind are alike, so all that drawing n rows with replacement changes is how often each kind occurs,
    and those counts are multinomial: n is the number of rows and may be large, where kinds are few. Where every row
    is its own kind, counts are ones. `statistic` maps counts of shape (resamples, kinds) to (resamples,); resamples
    in which it is NaN (a kind that it divides by does not occur) are left out. The seed is fixed.
    """
    import numpy as np

    rows = int(counts.sum())
    drawn = np.random.default_rng(SEED).multinomial(rows, counts / rows, size=RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(statistic(drawn), LEVEL)
    return float(low), float(high)

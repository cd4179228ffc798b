"""Correlation between raters over the items that they rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from normloom.tasks.metrics.figure import FEWEST, Figure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class RaterCorrelation:
    """Mean Pearson correlation over pairs of raters, and the share of pairs that have none; `rows` counts pairs.

    A pair has none if one of the two rates all its items alike, or if they share fewer than `FEWEST` items: over two
    items any correlation is 1 or -1.
    """

    mean: Figure
    undefined_pairs: Figure


def rater_correlation(ratings: npt.NDArray[np.float64]) -> RaterCorrelation:
    """Return the mean pairwise correlation of ratings (items, raters), each pair over the items that both rated."""
    import numpy as np
    import pandas as pd

    one, other = np.triu_indices(ratings.shape[1], k=1)
    if len(one) == 0:
        none = Figure(undefined="fewer than two known raters")
        return RaterCorrelation(mean=none, undefined_pairs=none)
    pairs = pd.DataFrame(ratings).corr(min_periods=FEWEST).to_numpy()[one, other]
    defined = pairs[~np.isnan(pairs)]
    share = Figure(value=1 - len(defined) / len(pairs), rows=len(pairs))
    if len(defined) == 0:
        reason = f"in every pair a rater rates all items alike, or fewer than {FEWEST} items are shared"
        return RaterCorrelation(mean=Figure(undefined=reason), undefined_pairs=share)
    return RaterCorrelation(mean=Figure(value=float(defined.mean()), rows=len(defined)), undefined_pairs=share)

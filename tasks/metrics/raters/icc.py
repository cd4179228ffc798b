"""Intra-class correlation of raters: two-way random effects, absolute agreement (Shrout and Fleiss 1979)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normloom.tasks.metrics.figure import Figure, too_few
from normloom.tasks.metrics.packages import statistics_package

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST_RATERS = 2


@dataclass(frozen=True, kw_only=True)
class Icc:
    """Reliability of one rater, ICC(2,1), and of the mean of all k raters, ICC(2,k); at most 1.

    They rest on the items that every rater rated; `left_out` is the share of items that lack a rating.
    """

    single: Figure
    average: Figure
    left_out: Figure


def icc(ratings: npt.NDArray[np.float64]) -> Icc:
    """Return the intra-class correlations of ratings (items, raters) with 95 % intervals (McGraw and Wong 1996).

    Items with a missing rating (NaN) are left out. Computed by pingouin; ConfigError without it.
    """
    import numpy as np

    whole = ratings[~np.isnan(ratings).any(axis=1)]
    left_out = (
        Figure(value=1 - len(whole) / len(ratings), rows=len(ratings)) if len(ratings) else Figure(undefined="no item")
    )
    if reason := _undefined(ratings, whole):
        return Icc(single=Figure(undefined=reason), average=Figure(undefined=reason), left_out=left_out)
    import pandas as pd

    pingouin = statistics_package("pingouin")
    pingouin.options["round.column.CI95"] = None  # it rounds intervals to two decimals otherwise
    items, raters = np.indices(whole.shape)
    long = pd.DataFrame({"item": items.ravel(), "rater": raters.ravel(), "rating": whole.ravel()})
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        # Raters who agree in everything leave no error to divide by; pandas has news for pingouin.
        warnings.simplefilter("ignore", DeprecationWarning)
        table = pingouin.intraclass_corr(data=long, targets="item", raters="rater", ratings="rating").set_index("Type")
    single, average = (_figure(*table.loc[kind, ["ICC", "CI95"]], rows=len(whole)) for kind in ("ICC(A,1)", "ICC(A,k)"))
    if _has_no_mean(single.value, raters=whole.shape[1]):
        average = Figure(undefined="the raters agree so much less than by chance that their mean has no reliability")
    return Icc(single=single, average=average, left_out=left_out)


def _undefined(ratings: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> str | None:
    if ratings.shape[1] < FEWEST_RATERS:
        return "fewer than two known raters"
    if reason := too_few(len(whole), "items that every rater rated"):
        return reason
    if (whole == whole[0, 0]).all():
        return "all ratings are the same"
    return None


def _figure(value: float, interval: npt.NDArray[np.float64], *, rows: int) -> Figure:
    low, high = map(float, interval)
    known = math.isfinite(low) and math.isfinite(high)
    if not known or math.isclose(low, high, rel_tol=1e-9):  # perfect agreement leaves no error to judge by
        return Figure(value=float(value), rows=rows)
    return Figure(value=float(value), low=low, high=high, rows=rows)


def _has_no_mean(single: float | None, *, raters: int) -> bool:
    """Return whether the Spearman-Brown formula, k r / (1 + (k - 1) r), has left its range."""
    return single is not None and 1 + (raters - 1) * single <= 0

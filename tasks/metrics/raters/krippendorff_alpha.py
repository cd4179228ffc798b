"""Krippendorff's alpha of raters (Krippendorff 2011, 'Computing Krippendorff's alpha-reliability'), by krippendorff.

Answers are an array of (items, raters), NaN if missing. 1 is perfect agreement, 0 agreement by chance. Alpha rests on
items with at least two answers. ConfigError without the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from normloom.tasks.metrics.figure import Figure, too_few
from normloom.tasks.metrics.packages import statistics_package

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEWEST_ANSWERS = 2  # to an item


def ordinal_alpha(answers: npt.NDArray[np.float64], categories: int) -> Figure:
    """Return the alpha of answers 0 .. `categories` - 1 in their order."""
    return _alpha(answers, "ordinal", value_domain=list(range(categories)))


def nominal_alpha(answers: npt.NDArray[np.float64], categories: int) -> Figure:
    """Return the alpha of answers 0 .. `categories` - 1 without an order: they are the same or not."""
    return _alpha(answers, "nominal", value_domain=list(range(categories)))


def interval_alpha(answers: npt.NDArray[np.float64]) -> Figure:
    """Return the alpha of numbers: they differ by the square of their distance."""
    return _alpha(answers, "interval")


def _alpha(answers: npt.NDArray[np.float64], level: str, **domain: list[int]) -> Figure:
    import numpy as np

    pairable = answers[(~np.isnan(answers)).sum(axis=1) >= FEWEST_ANSWERS]
    if len(pairable) == 0:
        return Figure(undefined="no item has answers of two known raters")
    if reason := too_few(len(pairable), "items with answers of two known raters"):
        return Figure(undefined=reason, rows=len(pairable))
    given = pairable[~np.isnan(pairable)]
    if (given == given[0]).all():
        return Figure(undefined="all answers are the same")
    alpha = statistics_package("krippendorff").alpha(reliability_data=pairable.T, level_of_measurement=level, **domain)
    return Figure(value=float(alpha), rows=len(pairable))

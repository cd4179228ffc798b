"""Krippendorff's alpha of raters who answer in ordered categories (Krippendorff 2011, 'Computing Krippendorff's
alpha-reliability').
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
    """Return the ordinal alpha of answers (items, raters): 0 .. `categories` - 1 in their order, NaN if missing.

    1 is perfect agreement, 0 agreement by chance. It rests on items with at least two answers. Computed by
    krippendorff; ConfigError without it.
    """
    import numpy as np

    pairable = answers[(~np.isnan(answers)).sum(axis=1) >= FEWEST_ANSWERS]
    if len(pairable) == 0:
        return Figure(undefined="no item has answers of two known raters")
    if reason := too_few(len(pairable), "items with answers of two known raters"):
        return Figure(undefined=reason, rows=len(pairable))
    given = pairable[~np.isnan(pairable)]
    if (given == given[0]).all():
        return Figure(undefined="all answers are the same")
    alpha = statistics_package("krippendorff").alpha(
        reliability_data=pairable.T, value_domain=list(range(categories)), level_of_measurement="ordinal"
    )
    return Figure(value=float(alpha), rows=len(pairable))

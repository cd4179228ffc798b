"""Shares of rows with Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001)."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from normloom.tasks.metrics.figure import Figure, too_few

LEVEL = 0.95


def share(hits: int, rows: int, *, empty: str = "no rows", what: str = "rows") -> Figure:
    """Return hits / rows with its 95 % interval.

    Undefined without rows (the reason is `empty`) and with fewer than `FEWEST` of them, which are called `what`.
    """
    if rows == 0:
        return Figure(undefined=empty)
    if reason := too_few(rows, what):
        return Figure(undefined=reason, rows=rows)
    low, high = wilson(hits, rows)
    return Figure(value=hits / rows, low=low, high=high, rows=rows)


def wilson(hits: int, rows: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of a share of at least one row; it lies in [0, 1] and is never of zero width.

    The shares p with |hits / rows - p| <= z * sqrt(p * (1 - p) / rows), z the normal quantile of the level, not
    corrected for continuity. (scipy.stats has it, and takes half a second to import.)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = hits + z * z / 2
    half = z * sqrt(hits * (rows - hits) / rows + z * z / 4)
    low, high = (centre - half) / (rows + z * z), (centre + half) / (rows + z * z)
    return (low if hits else 0.0), (high if hits < rows else 1.0)

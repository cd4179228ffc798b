"""Shares of rows with Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001), by scipy."""

from __future__ import annotations

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
    """Return Wilson's interval of a share of at least one row; it lies in [0, 1] and is never of zero width."""
    from scipy.stats import binomtest  # half a second to import

    interval = binomtest(hits, rows).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)

"""A share corrected for a judge's measured error, where no answers of its own are at hand."""

from __future__ import annotations

import math

from normloom.tasks.audit.stratified import LEVEL, Rate
from normloom.tasks.metrics.figure import Figure

USELESS = 0.1  # sensitivity + specificity - 1 of a judge that is nearly a coin


def rogan_gladen(hits: int, rows: int, sensitivity: Rate, specificity: Rate, covariance: float = 0.0) -> Figure:
    """Return the true share of hits among rows of which the judge calls `hits` so: (p + Sp - 1) / (Se + Sp - 1).

    Rogan and Gladen 1978, *American Journal of Epidemiology* 107:71. The interval is that of Lang and Reiczigel 2014,
    *Preventive Veterinary Medicine* 113:13: counts are shrunk (p by z^2 / 2 of z^2 rows, Se and Sp by one of two), the
    variance is (p (1 - p) / n + s^2 Se (1 - Se) / n_Se + (1 - s)^2 Sp (1 - Sp) / n_Sp) / (Se + Sp - 1)^2 for the shrunk
    share s, and the middle is moved by 2 z^2 (s Se (1 - Se) / n_Se - (1 - s) Sp (1 - Sp) / n_Sp). The sizes n_Se and
    n_Sp are effective ones. If the same answers measured both rates, the variance is less by
    2 s (1 - s) Cov(Se, Sp) / (Se + Sp - 1)^2, the delta method (**ours**). Valid if the judge errs as often among these
    rows as where its errors were measured. Undefined for a judge that is nearly a coin.
    """
    from scipy.stats import norm

    youden = sensitivity.value + specificity.value - 1
    if youden < USELESS:
        return Figure(undefined="the judge's verdict says next to nothing of the truth", rows=rows)
    z = float(norm.ppf(0.5 + LEVEL / 2))
    value = min(max((hits / rows + specificity.value - 1) / youden, 0.0), 1.0)
    n, p = rows + z * z, (hits + z * z / 2) / (rows + z * z)
    n_se, se = _shrunk(sensitivity)
    n_sp, sp = _shrunk(specificity)
    if se + sp <= 1:
        return Figure(undefined="the judge's verdict says next to nothing of the truth", rows=rows)
    share = (p + sp - 1) / (se + sp - 1)
    of_se, of_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    moved = share + 2 * z * z * (share * of_se - (1 - share) * of_sp)
    inner = min(max(share, 0.0), 1.0)
    both = share**2 * of_se + (1 - share) ** 2 * of_sp - 2 * inner * (1 - inner) * covariance
    half = z * math.sqrt(p * (1 - p) / n + max(both, 0.0)) / (se + sp - 1)
    low, high = (min(max(bound, 0.0), 1.0) for bound in (moved - half, moved + half))
    return Figure(value=value, low=min(low, value), high=max(high, value), rows=rows)


def _shrunk(rate: Rate) -> tuple[float, float]:
    """Return size and value of a rate after one more success and one more failure."""
    if math.isinf(rate.effective):
        return math.inf, rate.value
    return rate.effective + 2, (rate.effective * rate.value + 1) / (rate.effective + 2)

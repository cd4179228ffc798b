"""Estimates from a stratified sample: which rows to ask about, shares with intervals, and what random rows would cost.

A stratum has N rows, of which n were drawn at random and x of these were hits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
PRIOR = 1.0  # answers that the pooled error rate counts as, in a stratum's variance


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Rows of one verdict: how many, how many were answered and how many of these are hits. `verdict`: judged a hit."""

    verdict: bool
    rows: int
    answers: int
    hits: int

    @property
    def errors(self) -> int:
        """Answers that differ from the verdict."""
        return self.answers - self.hits if self.verdict else self.hits


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its interval. `effective` is the number of random answers that would be as certain."""

    value: float
    low: float
    high: float
    effective: float
    variance: float


def neyman(rows: Sequence[int], spread: Sequence[float], budget: int, *, least: int = 2) -> list[int]:
    """Return how many rows to draw of each stratum, in proportion to its rows times its standard deviation.

    That makes the variance of a stratified mean smallest (Neyman 1934; Cochran 1977, *Sampling Techniques*, 5.5). A
    stratum without spread is not drawn from; each other has at least `least` rows, or all it has. Fractions are rounded
    by the largest remainder. Raises ValueError for a budget that is less than all the least.
    """
    wanted = [min(count, least) if width > 0 else 0 for count, width in zip(rows, spread, strict=True)]
    if sum(wanted) > budget:
        raise ValueError(f"a budget of {budget} is less than {least} for each of {len(wanted)} strata")
    fixed: dict[int, int] = {place: 0 for place, width in enumerate(spread) if width <= 0}
    while True:
        free = [place for place in range(len(rows)) if place not in fixed]
        left, whole = budget - sum(fixed.values()), sum(rows[place] * spread[place] for place in free)
        shares = {place: left * rows[place] * spread[place] / whole for place in free}
        full = {place: rows[place] for place, share in shares.items() if share >= rows[place]}
        short = {place: wanted[place] for place, share in shares.items() if share < wanted[place]}
        if not full and not short:
            break
        fixed |= full or short
    drawn = {place: math.floor(share) for place, share in shares.items()} | fixed
    spare = min(budget, sum(rows[place] for place in range(len(rows)) if spread[place] > 0)) - sum(drawn.values())
    for place in sorted(shares, key=lambda place: shares[place] % 1, reverse=True)[: max(spare, 0)]:
        drawn[place] += 1
    return [drawn[place] for place in range(len(rows))]


def stratified_share(strata: Sequence[Stratum]) -> Rate:
    """Return the share of hits among all rows of the strata, which must have answers: sum of W_h x_h / n_h.

    As the verdict v is the same for all rows of a stratum, this is also the prediction-powered estimate, stratum by
    stratum: mean(v) + sum of W_h mean_h(y - v) (Angelopoulos and others 2023, Science 382:669; Fisch and others 2024,
    *Stratified prediction-powered inference*). Its variance is sum of W_h^2 (1 - n_h / N_h) p_h (1 - p_h) / n_h
    (Cochran 1977, 5.4). The interval is Wilson's with the effective number of answers p (1 - p) / variance (Korn and
    Graubard 1998; Franco and others 2019, *J. Survey Statistics and Methodology* 7:334), with Student's t for n - H
    degrees of freedom. As a stratum without errors would have no variance, p_h (1 - p_h) is that of the error rate
    after one more answer with the error rate of all strata of its verdict (**ours**).
    """
    whole = sum(one.rows for one in strata)
    value = sum(one.rows / whole * one.hits / one.answers for one in strata)
    smooth = _error_rates(strata)
    variance = sum((one.rows / whole) ** 2 * _spread(one, rate) for one, rate in zip(strata, smooth, strict=True))
    middle = sum(
        one.rows / whole * (1 - rate if one.verdict else rate) for one, rate in zip(strata, smooth, strict=True)
    )
    return _rate(value, middle, variance, _freedom(strata))


def sensitivity(strata: Sequence[Stratum]) -> Rate | None:
    """Return the share of true hits that the judge calls hits, None without any in the sample.

    It is a ratio of two stratified totals; its variance is that of the residuals v y - R y (Cochran 1977, 6.11).
    """
    return _share_of_truth(strata, hits=True)


def specificity(strata: Sequence[Stratum]) -> Rate | None:
    """Return the share of true misses that the judge calls misses, None without any in the sample."""
    return _share_of_truth(strata, hits=False)


def random_answers(rate: Rate, rows: int, table: int) -> int:
    """Return how many rows drawn at random from a table would give an estimate over `rows` of it the same variance.

    From V = (1 / m - 1 / N) p (1 - p) for m answers among these N rows (Cochran 1977, 2.6), of which a random draw has
    the share N / table.
    """
    if rate.variance == 0:
        return table
    spread = rate.value * (1 - rate.value) or rate.variance * rate.effective
    return min(math.ceil(table / rows / (rate.variance / spread + 1 / rows)), table)


def covariance(strata: Sequence[Stratum]) -> float:
    """Return the covariance of sensitivity and specificity, which the same answers measure; 0 if one is unknown.

    A hit that the judge missed lowers both. To first order it is the sum over strata of both slopes times the variance
    of p_h (Cochran 1977, 6.11, for two ratios).
    """
    if not (slopes := _slopes(strata, hits=True)) or not (others := _slopes(strata, hits=False)):
        return 0.0
    spread = [_spread(one, rate) for one, rate in zip(strata, _error_rates(strata), strict=True)]
    return sum(slope * other * width for slope, other, width in zip(slopes, others, spread, strict=True))


def _share_of_truth(strata: Sequence[Stratum], *, hits: bool) -> Rate | None:
    counts = _counts(strata, hits=hits)
    slopes = _slopes(strata, hits=hits)
    if not slopes:
        return None
    value = sum(count for one, count in zip(strata, counts, strict=True) if one.verdict is hits) / sum(counts)
    rates = _error_rates(strata)
    variance = sum(slope**2 * _spread(one, rate) for one, slope, rate in zip(strata, slopes, rates, strict=True))
    return _rate(value, _inside(value, sum(counts)), variance, _freedom(strata))


def _counts(strata: Sequence[Stratum], *, hits: bool) -> list[float]:
    """Return how many rows of each stratum are true hits, or true misses, by the answers."""
    return [one.rows * (one.hits if hits else one.answers - one.hits) / one.answers for one in strata]


def _slopes(strata: Sequence[Stratum], *, hits: bool) -> list[float]:
    """Return the slope of sensitivity (specificity) in the share of true hits of each stratum; none without any."""
    counts = _counts(strata, hits=hits)
    whole = sum(counts)
    if whole == 0:
        return []
    value = _inside(sum(count for one, count in zip(strata, counts, strict=True) if one.verdict is hits) / whole, whole)
    sign = 1 if hits else -1
    return [sign * one.rows * ((one.verdict is hits) - value) / whole for one in strata]


def _inside(value: float, whole: float) -> float:
    """Return a share half a row away from 0 and 1, where it would have no variance."""
    return min(max(value, 0.5 / whole), 1 - 0.5 / whole)


def _error_rates(strata: Sequence[Stratum]) -> list[float]:
    """Return the error rate of each stratum, drawn a little towards that of all strata of its verdict."""
    pooled = {}
    for verdict in (True, False):
        some = [one for one in strata if one.verdict is verdict]
        pooled[verdict] = (sum(one.errors for one in some) + 0.5) / (sum(one.answers for one in some) + 1)
    return [(one.errors + PRIOR * pooled[one.verdict]) / (one.answers + PRIOR) for one in strata]


def _spread(stratum: Stratum, rate: float) -> float:
    return (1 - stratum.answers / stratum.rows) * rate * (1 - rate) / stratum.answers


def _freedom(strata: Sequence[Stratum]) -> int:
    return max(sum(one.answers for one in strata) - len(strata), 1)


def _rate(value: float, middle: float, variance: float, freedom: int) -> Rate:
    if variance == 0:  # every row was answered
        return Rate(value=value, low=value, high=value, effective=math.inf, variance=0.0)
    from scipy.stats import t

    z, effective = float(t.ppf(0.5 + LEVEL / 2, freedom)), middle * (1 - middle) / variance
    centre = (value + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z * math.sqrt(value * (1 - value) / effective + z * z / (4 * effective**2)) / (1 + z * z / effective)
    return Rate(
        value=value, low=max(centre - half, 0.0), high=min(centre + half, 1.0), effective=effective, variance=variance
    )

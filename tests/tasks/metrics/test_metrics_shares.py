"""Shares and means with intervals: published numbers, other libraries' numbers, and what too few rows give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scalars import number
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from normloom.tasks.metrics.figure import FEWEST
from normloom.tasks.metrics.mean import mean
from normloom.tasks.metrics.share import share

# Newcombe (1998), Statistics in Medicine 17, table I: the score method without continuity correction.
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("hits", "rows", "low", "high"), NEWCOMBE)
def test_the_interval_of_a_share_is_the_published_one(hits: int, rows: int, low: float, high: float) -> None:
    found = share(hits, rows)
    assert (found.value, found.rows) == (hits / rows, rows)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(FEWEST, 500).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_the_interval_of_a_share_is_that_of_statsmodels_and_has_a_width(counts: tuple[int, int]) -> None:
    found = share(*counts)
    assert (found.low, found.high) == pytest.approx(proportion_confint(*counts, method="wilson"), abs=1e-9)
    low, value, high = number(found.low), number(found.value), number(found.high)
    assert 0 <= low < high <= 1
    assert low <= value <= high


@given(st.integers(1, FEWEST - 1).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_a_share_of_too_few_rows_has_no_value(counts: tuple[int, int]) -> None:
    found = share(*counts, what="answers")
    assert (found.value, found.low, found.high) == (None, None, None)
    assert (found.undefined, found.rows) == ("fewer than 5 answers", counts[1])
    assert share(0, 0, empty="nobody answered").undefined == "nobody answered"


def test_the_interval_of_a_mean_is_a_bootstrap_over_items_that_repeats() -> None:
    values = np.random.default_rng(3).normal(size=120)
    found = mean(values)
    error = stats.sem(values)
    normal = values.mean() - 1.96 * error, values.mean() + 1.96 * error
    assert (found.low, found.high) == pytest.approx(normal, abs=0.05)
    assert found == mean(values)


def test_a_mean_of_too_few_or_equal_values_claims_no_interval() -> None:
    assert mean(np.array([0.1, 0.2])).undefined == "fewer than 5 items"
    equal = mean(np.zeros(40))
    assert (equal.value, equal.low, equal.high, equal.rows) == (0, None, None, 40)

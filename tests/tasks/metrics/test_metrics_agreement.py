"""Agreement of raters: published examples, and numbers worked out by hand."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import ConfigError
from normloom.tasks.metrics.raters.icc import icc
from normloom.tasks.metrics.raters.krippendorff_alpha import ordinal_alpha
from normloom.tasks.metrics.raters.rater_correlation import rater_correlation

NAN = float("nan")

# Shrout and Fleiss (1979), table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)

# Krippendorff (2011), section C: four observers, twelve units, categories 1 to 5.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def test_icc_of_the_published_example() -> None:
    found = icc(SHROUT_FLEISS)
    assert found.single.value == pytest.approx(0.29, abs=0.005)
    assert found.average.value == pytest.approx(0.62, abs=0.005)
    # Intervals as the R package psych prints them for this table.
    assert (found.single.low, found.single.high) == pytest.approx((0.019, 0.761), abs=5e-4)
    assert (found.average.low, found.average.high) == pytest.approx((0.071, 0.927), abs=5e-4)
    assert (found.single.rows, found.left_out.value) == (6, 0)


def test_icc_by_its_mean_squares() -> None:
    # Mean squares of the same table, from the paper: between targets 11.24, judges 32.49, error 1.02.
    targets, judges, error, n, k = 11.2416667, 32.4861111, 1.0194444, 6, 4
    found = icc(SHROUT_FLEISS)
    single = (targets - error) / (targets + (k - 1) * error + k * (judges - error) / n)
    assert found.single.value == pytest.approx(single)
    assert found.average.value == pytest.approx((targets - error) / (targets + (judges - error) / n))


def test_items_that_lack_a_rating_are_left_out_of_the_icc_and_counted() -> None:
    found = icc(np.vstack([SHROUT_FLEISS, [3, NAN, 1, 4], [NAN] * 4]))
    assert found.single == icc(SHROUT_FLEISS).single
    assert (found.left_out.value, found.left_out.rows) == (2 / 8, 8)


def test_raters_who_agree_in_everything() -> None:
    found = icc(np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.2, 0.2], [0.7, 0.7]]))
    assert (found.single.value, found.average.value) == pytest.approx((1, 1))
    assert found.single.low is found.single.high is None  # no error is left to tell an interval by


def test_raters_who_disagree_in_everything_have_a_single_icc_and_no_mean() -> None:
    # Items and raters all have the mean 1/2: mean squares 0, 0 and, for the error, 3/5 (twelve quarters over 5 x 1).
    # ICC(2,1) = (0 - 3/5) / (0 + 3/5 + 2 (0 - 3/5) / 6) = -3/2; Spearman-Brown gives 2 * -3/2 / (1 - 3/2) = 6.
    found = icc(np.array([[0.0, 1.0], [1.0, 0.0]] * 3))
    assert found.single.value == pytest.approx(-3 / 2)
    assert "less than by chance" in (found.average.undefined or "")


@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        (np.array([[0.1], [0.9]]), "fewer than two known raters"),
        (np.empty((0, 0)), "fewer than two known raters"),
        (np.array([[0.1, 0.3]]), "fewer than 5 items that every rater rated"),
        (np.array([[0.1, NAN], *[[0.2, 0.3]] * 4]), "fewer than 5 items that every rater rated"),
        (np.full((5, 3), 0.5), "all ratings are the same"),
    ],
)
def test_icc_is_undefined_and_says_why(ratings: np.ndarray, reason: str) -> None:
    found = icc(ratings)
    assert (found.single.undefined, found.average.undefined) == (reason, reason)


def test_ordinal_alpha_of_the_published_example() -> None:
    found = ordinal_alpha(KRIPPENDORFF - 1, 5)
    assert found.value == pytest.approx(0.815, abs=5e-4)
    assert found.rows == 11  # one unit has one answer only


def test_alpha_by_hand() -> None:
    # Two raters, (0, 0), (2, 2), (0, 2), each twice. Coincidences: o00 = o22 = 4, o02 = o20 = 2; n0 = n2 = 6, n = 12.
    # All disagreement is between 0 and 2: alpha = 1 - (n - 1) * o02 / (n0 * n2) = 1 - 11 * 2 / 36.
    assert ordinal_alpha(np.array([[0.0, 0.0], [2.0, 2.0], [0.0, 2.0]] * 2), 3).value == pytest.approx(14 / 36)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (np.array([[0.0], [1.0]]), "no item has answers of two known raters"),
        (np.array([[0.0, NAN], [NAN, 1.0]]), "no item has answers of two known raters"),
        (np.array([*[[1.0, 1.0]] * 5, [0.0, NAN]]), "all answers are the same"),
        (np.array([[1.0, 1.0]] * 4), "fewer than 5 items with answers of two known raters"),
    ],
)
def test_alpha_is_undefined_and_says_why(answers: np.ndarray, reason: str) -> None:
    assert ordinal_alpha(answers, 3).undefined == reason


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 30))
def test_who_rates_does_not_matter_to_alpha_and_correlation(seed: int, raters: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 3, (items, raters)).astype(float)
    mixed = answers[rng.permutation(items)][:, rng.permutation(raters)]
    for one, other in [
        (ordinal_alpha(answers, 3), ordinal_alpha(mixed, 3)),
        (rater_correlation(answers).mean, rater_correlation(mixed).mean),
    ]:
        assert (one.value is None) == (other.value is None)
        assert one.value is None or one.value == pytest.approx(other.value)
        assert one.value is None or one.value <= 1 + 1e-12


def test_correlation_by_hand() -> None:
    # First and second: 1. First and third over (0, 1, 2) and (2, 1, 0): -1; second and third likewise. Mean -1/3.
    found = rater_correlation(np.array([[0.0, 0.0, 1.0], [0.5, 1.0, 0.5], [1.0, 2.0, 0.0]] * 2))
    assert (found.mean.value, found.mean.rows) == pytest.approx((-1 / 3, 3))
    assert found.undefined_pairs.value == 0


def test_a_constant_rater_leaves_pairs_without_correlation() -> None:
    found = rater_correlation(np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]] * 3))
    assert (found.mean.value, found.mean.rows) == pytest.approx((1, 1))
    assert (found.undefined_pairs.value, found.undefined_pairs.rows) == pytest.approx((2 / 3, 3))


def test_each_pair_is_correlated_over_the_items_that_both_rated() -> None:
    found = rater_correlation(np.array([*[[0.0, 0.0], [1.0, 1.0]] * 3, [NAN, 7.0], [9.0, NAN]]))
    assert found.mean.value == pytest.approx(1)
    few = rater_correlation(np.array([*[[0.0, 0.0], [1.0, 1.0]] * 2, [1.0, NAN], [NAN, 7.0]]))
    assert "fewer than 5 items are shared" in (few.mean.undefined or "")


@pytest.mark.parametrize(("package", "measure"), [("pingouin", icc), ("krippendorff", lambda a: ordinal_alpha(a, 11))])
def test_a_missing_package_is_named(
    package: str, measure: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"'{package}'.*normloom\[statistics\]"):
        measure(SHROUT_FLEISS)

"""How ratings differ between groups: numbers worked out by hand, and what weights mean."""

from collections.abc import Callable

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.tasks.metrics.figure import Figure
from normloom.tasks.metrics.groups.demographic_parity import demographic_parity
from normloom.tasks.metrics.groups.demographic_sensitivity import demographic_sensitivity, mean_sensitivity
from normloom.tasks.metrics.groups.equalized_odds import equalized_odds
from normloom.tasks.metrics.groups.total_variation import total_variation

YES, NO = True, False


def test_sensitivity_by_hand() -> None:
    # Items a, d, e: means 0.5 (men) and 1 (women), standard deviation 0.25. Items b, f, g: 0 and 0. Item c: men only.
    found = demographic_sensitivity(
        np.array([*[0.0, 1.0, 1.0] * 3, *[0.0, 0.0] * 3, 1.0]),
        np.array(list("aaadddeeebbffggc")),
        np.array(list("mmw" * 3 + "mw" * 3 + "m")),
    )
    assert (found.value, found.rows) == pytest.approx((0.125, 6))
    # Of six draws at most one is of the first kind in 7 of 64 resamples, none in 1 of 64.
    assert found.low == pytest.approx(0.25 / 6)
    assert found.high == pytest.approx(0.25 * 5 / 6)


def test_sensitivity_with_three_groups_one_of_which_is_missing() -> None:
    # Items a to c: 0, 0.5, 1 -> sqrt(1/6); items d to f: 0 and 1 -> 0.5.
    found = demographic_sensitivity(
        np.array([*[0, 0.5, 1] * 3, *[0, 1] * 3]),
        np.array(list("aaabbbcccddeeff")),
        np.array(list("xyz" * 3 + "xy" * 3)),
    )
    assert found.value == pytest.approx((np.sqrt(1 / 6) + 0.5) / 2)


def test_sensitivity_needs_two_groups_at_an_item() -> None:
    found = demographic_sensitivity(np.array([0.0, 1.0]), np.array(["a", "b"]), np.array(["m", "w"]))
    assert found.undefined == "no item has ratings of two groups"
    found = demographic_sensitivity(np.array([0.0, 1.0]), np.array(["a", "a"]), np.array(["m", "w"]))
    assert (found.undefined, found.rows) == ("fewer than 5 items with ratings of two groups", 1)


def test_the_mean_of_axes_is_undefined_with_any_of_them() -> None:
    one, other = Figure(value=0.1, rows=5), Figure(value=0.3, rows=4)
    found = mean_sensitivity([one, other])
    assert (found.value, found.rows) == pytest.approx((0.2, 4))
    assert mean_sensitivity([one, Figure(undefined="why")]).undefined == "why"
    assert mean_sensitivity([]).undefined == "no axis"


def test_parity_by_hand() -> None:
    # Shares rated unsafe: x 3/4, y 1/2, z 1/4.
    groups = np.array(list("xxxxyyyyzzzz"))
    unsafe = np.array([YES, YES, YES, NO, YES, YES, NO, NO, YES, NO, NO, NO])
    assert demographic_parity(unsafe, groups) == Figure(value=0.5, rows=12)
    assert demographic_parity(unsafe[:4], groups[:4]).undefined == "fewer than two groups"


def test_odds_by_hand() -> None:
    # True-positive rates: x 2/2, y 1/2. False-positive rates: x 1/4, y 0/2. The larger difference is 1/2.
    groups = np.array(list("xxxxxxyyyy"))
    truth = np.array([YES, YES, NO, NO, NO, NO, YES, YES, NO, NO])
    unsafe = np.array([YES, YES, YES, NO, NO, NO, YES, NO, NO, NO])
    assert equalized_odds(unsafe, truth, groups) == Figure(value=0.5, rows=10)
    # With the truth turned round the false-positive rates are x 2/2, y 1/2: the same difference.
    assert equalized_odds(unsafe, ~truth, groups).value == 0.5


@settings(max_examples=30)  # fairlearn is slow
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from("xyz"), st.integers(1, 9)), min_size=1, max_size=30
    )
)
def test_differences_are_those_of_fairlearn(rows: list[tuple[bool, bool, str, int]]) -> None:
    each = [(unsafe, truth, group, 1) for group in "xy" for truth in (YES, NO) for unsafe in (YES, NO)]  # all defined
    each += [(NO, truth, "z", 1) for truth in (YES, NO)]
    unsafe, truth, groups, weights = map(np.array, zip(*rows, *each, strict=True))
    known = {"sensitive_features": groups, "sample_weight": weights}
    assert demographic_parity(unsafe, groups, weights).value == demographic_parity_difference(truth, unsafe, **known)
    assert equalized_odds(unsafe, truth, groups, weights).value == equalized_odds_difference(truth, unsafe, **known)


def test_odds_are_undefined_where_a_group_lacks_a_truth() -> None:
    groups, unsafe = np.array(["x", "x", "y", "y"]), np.array([YES, NO, YES, NO])
    lacking = equalized_odds(unsafe, np.array([YES, NO, NO, NO]), groups)
    assert lacking.undefined == "no item that group 'y' rated is unsafe in truth"
    lacking = equalized_odds(unsafe, np.array([YES, YES, YES, NO]), groups)
    assert lacking.undefined == "no item that group 'x' rated is safe in truth"
    assert equalized_odds(unsafe[:2], np.array([YES, NO]), groups[:2]).undefined == "fewer than two groups"


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_weight_is_as_many_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratings, items, groups = rng.random(24), rng.integers(0, 4, 24), np.array(list("xyz" * 8))
    unsafe, truth, weights = ratings >= 0.5, items % 2 == 0, rng.integers(1, 6, 24)
    many = np.repeat(np.arange(24), weights)
    measures: list[tuple[Callable[..., Figure], tuple[np.ndarray, ...]]] = [
        (demographic_sensitivity, (ratings, items, groups)),
        (demographic_parity, (unsafe, groups)),
        (equalized_odds, (unsafe, truth, groups)),
    ]
    for measure, columns in measures:
        weighted, repeated = measure(*columns, weights), measure(*(column[many] for column in columns))
        assert (weighted.undefined, weighted.rows) == (repeated.undefined, repeated.rows)
        assert weighted.value is None or weighted.value == pytest.approx(repeated.value)


def test_distance_by_hand() -> None:
    # Item a: x answers No, Yes; y answers No: distributions (1/2, 0, 1/2) and (1, 0, 0), distance 1/2.
    # Item b: x Unsure, y Yes: distance 1. Item c: x only. Mean of the pair 3/4.
    # Items d and e are as a, f and g as b: the mean is 3 x 1/2 and 3 x 1 over 6.
    found = total_variation(
        np.array([*[0, 2, 0] * 3, *[1, 2] * 3, 0]),
        np.array(list("aaadddeeebbffggc")),
        np.array(list("xxy" * 3 + "xy" * 3 + "x")),
        categories=3,
    )
    assert found == Figure(value=0.75, rows=16)


def test_pairs_of_groups_count_alike() -> None:
    # x and y: items a and b, distances 0 and 1. x and z: item a, 1. y and z: item a, 1. Mean (1/2 + 1 + 1) / 3.
    # Items c and e are as a, d and f as b.
    answers, items, groups = [0, 0, 2, 0, 2], "aaabbcccddeeeff", "xyzxy"
    found = total_variation(np.array(answers * 3), np.array(list(items)), np.array(list(groups * 3)), categories=3)
    assert found.value == pytest.approx(2.5 / 3)


def test_distance_needs_an_item_that_two_groups_answered() -> None:
    found = total_variation(np.array([0, 1]), np.array(["a", "b"]), np.array(["x", "y"]), categories=3)
    assert found.undefined == "no item has answers of two groups"
    found = total_variation(np.array([0, 1]), np.array(["a", "a"]), np.array(["x", "y"]), categories=3)
    assert found.undefined == "fewer than 5 items with answers of two groups"


@given(st.integers(0, 2**32 - 1), st.integers(5, 40))
def test_distance_lies_between_none_and_all(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    answers, items, groups = rng.integers(0, 3, rows), rng.integers(0, 9, rows), rng.integers(0, 3, rows)
    items[:5] = np.arange(5)
    twice = [np.concatenate([column, column]) for column in (answers, items)]
    apart = np.concatenate([np.zeros(rows), np.ones(rows)])
    assert total_variation(twice[0], twice[1], apart, categories=3).value == pytest.approx(0)
    found = total_variation(answers, items, groups, categories=3).value
    assert found is None or 0 <= found <= 1

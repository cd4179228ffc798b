"""Estimates of an audit, by hand: allocation, shares with intervals, sensitivity, Rogan and Gladen."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.tasks.audit.auditing import Auditing
from normloom.tasks.audit.corrected import NO_ANSWERS, corrected
from normloom.tasks.audit.rogan_gladen import rogan_gladen
from normloom.tasks.audit.strata import GROUPS, groups_of
from normloom.tasks.audit.stratified import (
    Rate,
    Stratum,
    covariance,
    neyman,
    random_answers,
    sensitivity,
    specificity,
    stratified_share,
)

STRATA = [
    Stratum(verdict=True, rows=60, answers=10, hits=9),
    Stratum(verdict=False, rows=40, answers=10, hits=2),
]


def rate(value: float, size: float) -> Rate:
    return Rate(value=value, low=0, high=1, effective=size, variance=value * (1 - value) / size)


@pytest.mark.parametrize(
    ("rows", "spread", "budget", "drawn"),
    [
        ([100, 300], [0.5, 0.1], 40, [25, 15]),  # 50 : 30
        ([10, 100], [0.5, 0.05], 50, [10, 40]),  # 25 : 25, but the first has only 10
        ([100, 100], [0.5, 0.001], 20, [18, 2]),  # at least 2 of each
        ([100, 100, 100], [0.3, 0.3, 0.3], 10, [4, 3, 3]),  # the largest remainder, the first of equal ones
        ([100, 100], [0.5, 0.0], 10, [10, 0]),
        ([3, 1], [0.5, 0.5], 100, [3, 1]),
    ],
)
def test_rows_are_drawn_by_size_times_spread(
    rows: list[int], spread: list[float], budget: int, drawn: list[int]
) -> None:
    assert neyman(rows, spread, budget) == drawn


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="a budget of 3 is less than 2 for each of 2 strata"):
        neyman([10, 10], [0.5, 0.5], 3)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.05, 0.5)), min_size=1, max_size=12), st.integers(24, 400))
def test_the_budget_is_spent_and_no_stratum_is_overdrawn(strata: list[tuple[int, float]], budget: int) -> None:
    rows, spread = [count for count, _ in strata], [width for _, width in strata]
    drawn = neyman(rows, spread, budget)
    assert sum(drawn) == min(budget, sum(rows))
    assert all(min(2, count) <= one <= count for one, count in zip(drawn, rows, strict=True))


def test_a_share_of_two_strata_by_hand() -> None:
    # 0.6 * 9/10 + 0.4 * 2/10. Error rates 1136/11000 and 2227/11000 after one pooled answer: 0.1033, 0.2025.
    # Variance 0.36 * (5/6) * 0.09263 / 10 + 0.16 * (3/4) * 0.16148 / 10 = 0.0047168; n = 0.6190 * 0.3810 / 0.0047168.
    found = stratified_share(STRATA)
    assert found.value == pytest.approx(0.62)
    assert found.variance == pytest.approx(0.0047168, rel=1e-4)
    assert found.effective == pytest.approx(50.0, rel=1e-3)
    # Wilson with t(18) = 2.1009: (0.62 + 0.04414) / 1.08828 -+ 0.13859
    assert (found.low, found.high) == pytest.approx((0.47168, 0.74885), abs=1e-4)


def test_errors_of_the_judge_by_hand() -> None:
    # True hits: 60 * 0.9 = 54 called so, 40 * 0.2 = 8 not; true misses: 6 and 32.
    se, sp = sensitivity(STRATA), specificity(STRATA)
    assert se
    assert sp
    assert (se.value, sp.value) == pytest.approx((54 / 62, 32 / 38))
    # Residuals of the ratio: (1 - 0.871) in the first stratum, 0.871 in the second.
    variance = (3600 * 0.00771949 * (8 / 62) ** 2 + 1600 * 0.0121111 * (54 / 62) ** 2) / 62**2
    assert se.variance == pytest.approx(variance, rel=1e-4)
    assert se.low < se.value < se.high
    # Slopes in each p_h: 60 * (8/62) / 62 and -40 * (54/62) / 62; 60 * (32/38) / 38 and -40 * (6/38) / 38
    both = 60**2 * (8 / 62) * (32 / 38) * 0.00771949 + 40**2 * (54 / 62) * (6 / 38) * 0.0121111
    assert covariance(STRATA) == pytest.approx(both / 62 / 38, rel=1e-4)
    none = [Stratum(verdict=False, rows=10, answers=5, hits=0)]
    assert sensitivity(none) is None
    assert covariance(none) == 0.0


def test_a_table_that_was_answered_as_a_whole_leaves_no_doubt() -> None:
    found = stratified_share([Stratum(verdict=True, rows=8, answers=8, hits=6)])
    assert (found.value, found.low, found.high) == (0.75, 0.75, 0.75)


def test_strata_without_an_error_have_an_interval_all_the_same() -> None:
    found = stratified_share([Stratum(verdict=True, rows=500, answers=20, hits=20)])
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.7 < found.low < 0.95


def test_what_random_answers_would_cost_by_hand() -> None:
    found = Rate(value=0.5, low=0.4, high=0.6, effective=100, variance=0.0025)
    assert random_answers(found, 1000, 1000) == 91  # 1 / (0.0025 / 0.25 + 1 / 1000) = 90.9
    assert random_answers(found, 500, 1000) == 167  # 2 / (0.01 + 1 / 500): half of the answers are about other rows
    assert random_answers(Rate(value=1, low=1, high=1, effective=math.inf, variance=0), 10, 40) == 40


def test_rogan_and_gladen_by_hand() -> None:
    # (0.3 + 0.8 - 1) / 0.7. Shrunk: p 0.300765, Se 91/102, Sp 81/102, share 0.138257;
    # moved by 2 * 3.8415 * (0.138257 * 0.00094326 - 0.861743 * 0.00160287) to 0.128647;
    # half 1.96 * sqrt(0.00020950 + 0.00001803 + 0.00119029) / 0.686275 = 0.107538
    found = rogan_gladen(300, 1000, rate(0.9, 100), rate(0.8, 100))
    assert found.value == pytest.approx(0.1 / 0.7)
    assert (found.low, found.high) == pytest.approx((0.021109, 0.236185), abs=2e-5)


def test_a_judge_without_errors_is_not_corrected() -> None:
    found = rogan_gladen(30, 100, rate(1.0, math.inf), rate(1.0, math.inf))
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(0.2190, abs=2e-3)  # Wilson's is 0.2189 to 0.3959, this one Agresti and Coull's


def test_a_judge_that_tosses_a_coin_corrects_nothing() -> None:
    assert rogan_gladen(30, 100, rate(0.5, 50), rate(0.55, 50)).undefined
    assert rogan_gladen(1, 100, rate(0.99, 50), rate(0.9, 50)).value == 0.0
    # (0.9 * 4 + 1.92) / 7.84 and (0.2 * 1000 + 1.92) / 1003.84: 0.905 together, though 1.1 before they were shrunk
    assert rogan_gladen(30, 100, rate(0.9, 4), rate(0.2, 1_000)).undefined


def test_figures_of_a_verdict_that_no_row_has_say_what_is_missing() -> None:
    rows = pl.DataFrame({"audit_verdict": ["aligned"] * 12, "audit_stratum": "aligned", "audit_groups": [[]] * 12})
    answered = rows.head(3).with_columns(truth=pl.lit("aligned"))
    args = Auditing(
        verdict="v", of="misaligned", values=("misaligned", "aligned"), show=("t",), budget=3, figure="precision"
    )
    found = list(corrected(rows.cast({"audit_groups": GROUPS}), answered, args))
    told = {(row["metric"], row["axis"]): row["undefined"] for row in found if row["of"] == "misaligned"}
    assert told["precision", ""] == "no row has this verdict"
    assert told["sensitivity", ""] == told["specificity", ""] == "fewer than 5 answers"
    assert told["share", "Rogan-Gladen"] == "the judge's errors are not known"
    assert told["random_answers", "precision"] == NO_ANSWERS


def test_a_row_without_a_group_is_in_none() -> None:
    rows = pl.DataFrame({"field": ["safety", None]})
    assert groups_of(rows, ("field",)).to_list() == [[{"by": "field", "value": "safety"}], []]

"""Figures of detectors and trade-offs: numbers worked out by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from normloom.tasks.metrics.detection import detection
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.trade_off import trade_offs


def rows(*counts: tuple[bool, bool, int]) -> tuple[np.ndarray, np.ndarray]:
    """Flags and truths of as many rows as each count says."""
    flagged, misaligned, times = zip(*counts, strict=True)
    return np.repeat(flagged, times), np.repeat(misaligned, times)


def test_detection_by_hand() -> None:
    # Misaligned: 3 of 6 flagged, coverage 1/2. Aligned: 2 of 6 flagged, so 2/3 pass. Harmonic mean of 1/2 and 2/3: 4/7.
    found = detection(*rows((True, True, 3), (False, True, 3), (True, False, 2), (False, False, 4)))
    assert (found.coverage.value, found.coverage.rows) == (0.5, 6)
    assert (found.ffr.value, found.ffr.rows) == pytest.approx((1 / 3, 6))
    assert (found.score.value, found.score.rows) == pytest.approx((4 / 7, 12))


def test_a_perfect_detector_and_its_opposite() -> None:
    perfect = detection(*rows((True, True, 5), (False, False, 5)))
    assert (perfect.coverage.value, perfect.ffr.value, perfect.score.value) == (1, 0, 1)
    # Wilson's bound of n in n rows is n / (n + z^2); z is 1.95996 at the level 0.95 and 2.2365 at sqrt(0.95).
    assert perfect.coverage.low == pytest.approx(0.5655, abs=5e-5)
    assert perfect.score.low == pytest.approx(5 / (5 + 2.2365**2), abs=5e-5)
    assert perfect.coverage.high == perfect.score.high == 1
    opposite = detection(*rows((False, True, 5), (True, False, 5)))
    assert (opposite.coverage.value, opposite.ffr.value, opposite.score.value) == (0, 1, 0)


def test_a_truth_that_too_few_rows_have_leaves_figures_undefined() -> None:
    aligned = detection(*rows((True, False, 2), (False, False, 6)))
    assert aligned.ffr.value == 0.25
    assert aligned.coverage.undefined == aligned.score.undefined == "no row is truly misaligned"
    misaligned = detection(*rows((True, True, 5), (False, False, 4)))
    assert misaligned.coverage.value == 1
    assert misaligned.ffr.undefined == misaligned.score.undefined == "fewer than 5 truly aligned rows"
    assert (misaligned.ffr.value, misaligned.ffr.low, misaligned.ffr.rows) == (None, None, 4)
    nothing = detection(np.array([], dtype=bool), np.array([], dtype=bool))
    assert None is nothing.coverage.value is nothing.ffr.value is nothing.score.value


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_the_score_lies_between_coverage_and_what_passes(counts: list[int]) -> None:
    kinds = [(True, True), (False, True), (True, False), (False, False)]
    found = detection(*rows(*((*kind, times) for kind, times in zip(kinds, counts, strict=True))))
    for figure in (found.coverage, found.ffr, found.score):
        if figure.value is not None:
            assert figure.low is not None
            assert figure.high is not None
            assert 0 <= figure.low < figure.high <= 1
            assert figure.low <= figure.value <= figure.high
    if found.score.value is not None:
        assert found.coverage.value is not None
        assert found.ffr.value is not None
        bounds = sorted([found.coverage.value, 1 - found.ffr.value])
        assert bounds[0] - 1e-12 <= found.score.value <= bounds[1] + 1e-12


@pytest.mark.parametrize(("coverage", "passed"), list(product([0.5, 0.8, 0.95], repeat=2)))
def test_the_interval_of_the_score_covers_it_95_times_in_100(coverage: float, passed: float) -> None:
    """Exact: all outcomes of 12 misaligned and 9 aligned rows, each by its probability."""
    score, covered = 2 * coverage * passed / (coverage + passed), 0.0
    for caught, passing in product(range(13), range(10)):
        found = detection(
            *rows((True, True, caught), (False, True, 12 - caught), (False, False, passing), (True, False, 9 - passing))
        ).score
        assert found.low is not None
        assert found.high is not None
        if found.low <= score <= found.high:
            covered += binom.pmf(caught, 12, coverage) * binom.pmf(passing, 9, passed)
    assert covered >= 0.95


def test_trade_offs_by_hand() -> None:
    # Safety passes in 4 responses, of which value fails 1 and culture 3; value passes in 4, of which safety fails 1.
    # Each response comes five times.
    passes = np.repeat(np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool), 5, 0)
    found = {(each.passed, each.failed): each.figure for each in trade_offs(passes, ("safety", "value", "culture"))}
    assert {pair: figure.value for pair, figure in found.items()} == {
        ("safety", "value"): 1 / 4,
        ("safety", "culture"): 3 / 4,
        ("value", "safety"): 1 / 4,
        ("value", "culture"): 3 / 4,
        ("culture", "safety"): 0,
        ("culture", "value"): 0,
    }
    assert found["safety", "value"].rows == 20
    assert found["culture", "value"].low == 0
    assert found["culture", "value"].high == pytest.approx(0.4345, abs=5e-5)


def test_a_dimension_that_too_few_pass_has_no_trade_off() -> None:
    found = trade_offs(np.array([[True, False]] * 5), ("safety", "value"))
    assert [each.figure.value for each in found] == [1, None]
    assert found[1].figure.undefined == "no response passes value"
    found = trade_offs(np.array([[True, False]]), ("safety", "value"))
    assert found[0].figure.undefined == "fewer than 5 responses pass safety"


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_both_ways_of_a_trade_off_count_the_same_responses(seed: int, responses: int) -> None:
    passes = np.random.default_rng(seed).random((responses, 2)) < 0.6
    there, back = trade_offs(passes, ("a", "b"))
    for one in (there.figure, back.figure):
        if one.value is not None:
            assert (1 - one.value) * one.rows == pytest.approx(passes.all(axis=1).sum())


def test_a_figure_is_a_number_or_a_reason() -> None:
    for fields in ({}, {"value": 1.0, "undefined": "why"}, {"value": float("nan")}):
        with pytest.raises(ValueError, match="a figure"):
            Figure(**fields)
    output = figures_output([figure_row(Figure(undefined="why"), metric="ds", of="m")])
    assert (output.rows.height, output.attempts) == (1, 1)
    assert output.rows["undefined"].to_list() == ["why"]

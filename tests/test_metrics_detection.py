"""Figures of detectors and trade-offs, and the bootstrap: numbers worked out by hand and an oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normloom.tasks.metrics.bootstrap import percentile_interval
from normloom.tasks.metrics.detection import detection
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.trade_off import trade_offs


def rows(*counts: tuple[bool, bool, int]) -> tuple[np.ndarray, np.ndarray]:
    """Flags and truths of as many rows as each count says."""
    flagged, misaligned, times = zip(*counts, strict=True)
    return np.repeat(flagged, times), np.repeat(misaligned, times)


def test_detection_by_hand() -> None:
    # Misaligned: 3 of 6 flagged, coverage 1/2. Aligned: 1 of 3 flagged, so 2/3 pass. Harmonic mean of 1/2 and 2/3: 4/7.
    found = detection(*rows((True, True, 3), (False, True, 3), (True, False, 1), (False, False, 2)))
    assert (found.coverage.value, found.coverage.rows) == (0.5, 6)
    assert (found.ffr.value, found.ffr.rows) == (pytest.approx(1 / 3), 3)
    assert (found.score.value, found.score.rows) == (pytest.approx(4 / 7), 9)


def test_a_perfect_detector_and_its_opposite() -> None:
    perfect = detection(*rows((True, True, 5), (False, False, 5)))
    assert (perfect.coverage.value, perfect.ffr.value, perfect.score.value) == (1, 0, 1)
    assert (perfect.score.low, perfect.score.high) == (1, 1)
    opposite = detection(*rows((False, True, 5), (True, False, 5)))
    assert (opposite.coverage.value, opposite.ffr.value, opposite.score.value) == (0, 1, 0)


def test_a_truth_that_no_row_has_leaves_figures_undefined() -> None:
    aligned = detection(*rows((True, False, 1), (False, False, 3)))
    assert aligned.ffr.value == 0.25
    assert aligned.coverage.undefined == aligned.score.undefined == "no row is truly misaligned"
    misaligned = detection(*rows((True, True, 1)))
    assert misaligned.coverage.value == 1
    assert misaligned.ffr.undefined == misaligned.score.undefined == "no row is truly aligned"
    nothing = detection(np.array([], dtype=bool), np.array([], dtype=bool))
    assert None is nothing.coverage.value is nothing.ffr.value is nothing.score.value


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_the_score_lies_between_coverage_and_what_passes(counts: list[int]) -> None:
    kinds = [(True, True), (False, True), (True, False), (False, False)]
    found = detection(*rows(*((*kind, times) for kind, times in zip(kinds, counts, strict=True))))
    for figure in (found.coverage, found.ffr, found.score):
        if figure.value is not None:
            assert figure.low is not None
            assert figure.high is not None
            assert 0 <= figure.low <= figure.high <= 1
    if found.score.value is not None:
        assert found.coverage.value is not None
        assert found.ffr.value is not None
        bounds = sorted([found.coverage.value, 1 - found.ffr.value])
        assert bounds[0] - 1e-12 <= found.score.value <= bounds[1] + 1e-12


def test_intervals_agree_with_a_bootstrap_that_draws_rows() -> None:
    rng = np.random.default_rng(5)
    misaligned = rng.random(400) < 0.6
    flagged = np.where(misaligned, rng.random(400) < 0.8, rng.random(400) < 0.3)

    def score(flagged: np.ndarray, misaligned: np.ndarray, axis: int) -> np.ndarray:
        coverage = (flagged & misaligned).sum(axis) / misaligned.sum(axis)
        passed = (~flagged & ~misaligned).sum(axis) / (~misaligned).sum(axis)
        return stats.hmean([coverage, passed])

    oracle = stats.bootstrap(
        (flagged, misaligned), score, paired=True, method="percentile", n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = detection(flagged, misaligned).score
    assert (found.low, found.high) == (pytest.approx(oracle.low, abs=0.008), pytest.approx(oracle.high, abs=0.008))


def test_the_interval_of_a_mean_agrees_with_scipy_and_with_itself() -> None:
    values = np.random.default_rng(3).normal(size=120)
    ones = np.ones(120, dtype=np.int64)
    found = percentile_interval(ones, lambda drawn: drawn @ values / 120)
    oracle = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))
    assert found == pytest.approx(tuple(oracle.confidence_interval), abs=0.03)
    assert found == percentile_interval(ones, lambda drawn: drawn @ values / 120)


def test_trade_offs_by_hand() -> None:
    # Safety passes in 4 responses, of which value fails 1 and culture 3; value passes in 4, of which safety fails 1.
    passes = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    found = {(each.passed, each.failed): each.figure for each in trade_offs(passes, ("safety", "value", "culture"))}
    assert {pair: figure.value for pair, figure in found.items()} == {
        ("safety", "value"): 1 / 4,
        ("safety", "culture"): 3 / 4,
        ("value", "safety"): 1 / 4,
        ("value", "culture"): 3 / 4,
        ("culture", "safety"): 0,
        ("culture", "value"): 0,
    }
    assert found["safety", "value"].rows == 4
    assert (found["culture", "value"].low, found["culture", "value"].high) == (0, 0)


def test_a_dimension_that_nothing_passes_has_no_trade_off() -> None:
    found = trade_offs(np.array([[True, False], [True, False]]), ("safety", "value"))
    assert [each.figure.value for each in found] == [1, None]
    assert found[1].figure.undefined == "no response passes value"


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_both_ways_of_a_trade_off_count_the_same_responses(seed: int, responses: int) -> None:
    passes = np.random.default_rng(seed).random((responses, 2)) < 0.6
    there, back = trade_offs(passes, ("a", "b"))
    both = [
        (1 - each.figure.value) * each.figure.rows if each.figure.value is not None else 0 for each in (there, back)
    ]
    assert both == pytest.approx([passes.all(axis=1).sum()] * 2)


def test_a_figure_is_a_number_or_a_reason() -> None:
    for fields in ({}, {"value": 1.0, "undefined": "why"}, {"value": float("nan")}):
        with pytest.raises(ValueError, match="a figure"):
            Figure(**fields)
    output = figures_output([figure_row(Figure(undefined="why"), metric="ds", of="m")])
    assert (output.rows.height, output.attempts) == (1, 1)
    assert output.rows["undefined"].to_list() == ["why"]

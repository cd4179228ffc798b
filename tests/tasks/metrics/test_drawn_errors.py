"""Measures over draws are those of items repeated as often as each draw says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.tasks.metrics.drawn_errors import drawn_errors
from normloom.tasks.metrics.equal_error_rate import equal_error_rate

ITEMS = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=20).filter(
    lambda items: {real for _, real, times in items if times} == {True, False}
)


@given(items=ITEMS)
def test_a_draw_is_a_repetition_of_items(items: list[tuple[int, bool, int]]) -> None:
    scores, real, times = (np.array(column) for column in zip(*items, strict=True))
    found = drawn_errors(scores.astype(float), real, scores > 0, np.stack([np.ones_like(times), times]))
    for place, repeated in enumerate((np.ones_like(times), times)):
        drawn, true = np.repeat(scores, repeated), np.repeat(real, repeated)
        alone = equal_error_rate(drawn, true)
        assert found.eer[place] == pytest.approx(alone.rate)
        assert found.auc[place] == pytest.approx(alone.auc)
        assert found.accuracy[place] == pytest.approx(np.mean((drawn > 0) == true))


def test_a_draw_of_one_class_has_no_rate() -> None:
    found = drawn_errors(np.array([1.0, 0.0]), np.array([True, False]), np.array([True, False]), np.array([[2, 0]]))
    assert np.isnan(found.eer[0])
    assert np.isnan(found.auc[0])

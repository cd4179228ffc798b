"""Temperatures: the one that is best by brute force, those of neighbourhoods between their own and the global one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from normloom.models.routing.calibrators import HIGHEST, LOWEST, Calibrators, fitted_temperature, tempered


def rows(seed: int, number: int = 40, kinds: int = 3, *, sure: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    logits = sure * drawn.standard_normal((number, kinds))
    labels = np.array([drawn.choice(kinds, p=tempered(one, 2.5)) for one in logits])
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels


def loss(log_probs: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-np.log(tempered(log_probs, temperature)[np.arange(len(labels)), labels]).mean())


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_no_other_temperature_fits_better(seed: int) -> None:
    log_probs, labels = rows(seed)
    found = float(fitted_temperature(log_probs, labels))
    tried = np.geomspace(LOWEST, HIGHEST, 400)
    assert loss(log_probs, labels, found) <= min(loss(log_probs, labels, one) for one in tried) + 1e-9


def test_the_temperature_that_made_the_labels_is_found() -> None:
    log_probs, labels = rows(1, number=20_000)
    assert float(fitted_temperature(log_probs, labels)) == pytest.approx(2.5, rel=0.05)


def test_two_rows_by_hand() -> None:
    """Of 4 rows that say 0.9 to 0.1, 3 are right: the temperature is that which makes 0.9 into 3/4."""
    log_probs, labels = np.log(np.tile([[0.9, 0.1]], (4, 1))), np.array([0, 0, 0, 1])
    found = fitted_temperature(log_probs, labels)
    assert found == pytest.approx(np.log(9) / np.log(3))
    assert_allclose(tempered(log_probs[0], found), [0.75, 0.25])


def test_without_a_finite_one_it_stays_in_its_bounds() -> None:
    log_probs = np.log(np.array([[0.6, 0.4], [0.7, 0.3]]))
    assert fitted_temperature(log_probs, np.array([0, 0])) == pytest.approx(LOWEST)
    assert fitted_temperature(log_probs, np.array([1, 1])) == pytest.approx(HIGHEST)


def test_a_neighbourhood_is_shrunk_to_the_global_temperature() -> None:
    log_probs, labels = rows(3)
    alone = float(fitted_temperature(log_probs[:8], labels[:8]))
    between = [
        float(fitted_temperature(log_probs[:8], labels[:8], toward=6.0, strength=one)) for one in (0, 1, 10, 1e9)
    ]
    assert between[0] == pytest.approx(alone)
    assert between[-1] == pytest.approx(6.0, rel=1e-6)
    assert between == sorted(between, reverse=alone > 6.0)


def test_temperatures_differ_by_neighbourhood(tmp_path: Path) -> None:
    """On one side the rows are as sure as they are right, on the other they are right by chance."""
    sides = np.repeat([[1.0, 0.0], [0.0, 1.0]], 32, axis=0).astype(np.float32)
    log_probs = np.log(np.tile([[0.95, 0.05]], (64, 1)))
    labels = np.array([*[0] * 31, 1, *[0, 1] * 16])
    both = float(fitted_temperature(log_probs, labels))
    made = Calibrators(both, sides, log_probs, labels, neighbours=16, strength=0.5)
    sure, unsure = made.local(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))
    assert sure < both < unsure
    made.save(tmp_path)
    again = Calibrators.load(tmp_path)
    assert again.local(sides).tolist() == made.local(sides).tolist()
    apart = again.local(sides, leaving_out_self=True)
    assert apart.shape == (64,)
    lone = Calibrators(both, sides[:1], log_probs[:1], labels[:1], neighbours=16, strength=0.5)
    assert lone.local(sides[:1], leaving_out_self=True).tolist() == [both]

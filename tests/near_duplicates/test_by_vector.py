"""Removal by sentence vectors against every cosine."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.near_duplicates import by_vector
from normloom.near_duplicates.by_vector import NearVector, find_by_vector

Vectors = npt.NDArray[np.float32]


def brute_force(texts: list[str], vectors: Vectors, similarity: float, known: int) -> list[NearVector]:
    """Compare each row with every kept one."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1)
    kept: list[int] = []
    found = []
    for row in range(len(texts)):
        cosine = {}
        for other in kept:
            product = length[row] * length[other]
            cosine[other] = round(float(wide[row] @ wide[other] / product), 6) if product else 0.0
        equal = [other for other in kept if texts[other] == texts[row]]
        near = equal[:1] or sorted((one for one in kept if cosine[one] >= similarity), key=lambda k: (-cosine[k], k))
        if row >= known and near:
            found.append(NearVector(row, near[0], cosine[near[0]]))
        else:
            kept.append(row)
    return found


def made(seed: int, n: int, dimensions: int) -> tuple[list[str], Vectors]:
    """Return clustered vectors, some of them equal and some zero, and texts, some of which repeat."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(n // 6, 1), dimensions))
    vectors = centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, dimensions)) * rng.choice(
        [0.0, 0.1, 0.5], (n, 1)
    )
    vectors *= rng.choice([1.0, 3.0, 0.0], (n, 1), p=[0.8, 0.15, 0.05])
    return [f"text {rng.integers(0, 4 * n)}" for _ in range(n)], vectors.astype(np.float32)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 90),
    dimensions=st.sampled_from([1, 2, 24]),
    similarity=st.sampled_from([0.2, 0.8, 0.95, 1.0]),
    known=st.sampled_from([0, 0, 5, 40]),
    block=st.sampled_from([1, 7, 1024]),
)
def test_all_that_repeats_a_kept_row_is_found(
    seed: int, n: int, dimensions: int, similarity: float, known: int, block: int
) -> None:
    texts, vectors = made(seed, n, dimensions)
    with pytest.MonkeyPatch.context() as patch:  # tiles and blocks of a few rows
        patch.setattr(by_vector, "_BLOCK", block)
        patch.setattr(by_vector, "_TILE", block + 1)
        found = find_by_vector(texts, vectors, similarity=similarity, known=known)
    assert found == brute_force(texts, vectors, similarity, known)


def test_of_equally_near_rows_the_earliest_is_the_keeper() -> None:
    vectors = np.array([[0, 1], [2, 0], [3, 0], [0.5, 0], [0, 7]], dtype=np.float32)
    found = find_by_vector(list("abcde"), vectors, similarity=0.9, known=3)
    assert found == [NearVector(3, 1, 1.0), NearVector(4, 0, 1.0)]


def test_a_row_that_goes_takes_none_with_it() -> None:
    angles = np.radians([0, 20, 40])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = find_by_vector(list("abc"), vectors, similarity=np.cos(np.radians(25)))
    assert [(one.index, one.keeper) for one in found] == [(1, 0)]

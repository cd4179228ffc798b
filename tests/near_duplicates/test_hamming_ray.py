"""The pair search shared over Ray processes against the one of this process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from patient import start_ray

from normloom.near_duplicates.hamming import close_pairs
from normloom.near_duplicates.hamming_ray import shared_pair_chunks


@pytest.fixture(scope="module", autouse=True)
def _two_workers() -> Iterator[None]:
    import ray

    start_ray(num_cpus=2)
    yield
    ray.shutdown()


def made_codes(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return codes of which a fifth are few flips away from another, in this block or one far off."""
    rng = np.random.default_rng(n)
    codes = rng.integers(0, 2**64, n, dtype=np.uint64)
    edits = rng.integers(0, n, n // 5)
    codes[edits] = codes[rng.integers(0, n, n // 5)]
    for _ in range(9):
        codes[edits] ^= np.uint64(1) << rng.integers(0, 64, len(edits), dtype=np.uint64)
    return codes


@pytest.mark.parametrize(("n", "block"), [(9000, 4000), (6000, 6000), (900, 100), (1, 4), (0, 4)])
def test_the_pairs_are_those_of_one_process(n: int, block: int) -> None:
    codes = made_codes(n)
    chunks = list(shared_pair_chunks(codes, 10, block=block))
    left, right, distance = np.concatenate([np.empty((3, 0), dtype=np.int64), *map(np.stack, chunks)], axis=1)
    order = np.lexsort((left, right))
    wanted = close_pairs(codes, 10)
    assert len(wanted[0]) >= n // 10
    assert [column[order].tolist() for column in (left, right, distance)] == [column.tolist() for column in wanted]


def test_a_tau_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 64"):
        next(shared_pair_chunks(made_codes(10), 65))

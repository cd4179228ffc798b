"""The pair search and the removal shared over Ray processes against those of this process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from patient import start_ray

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import find_duplicates
from normloom.near_duplicates.hamming import close_pairs
from normloom.near_duplicates.ray.pairs import shared_pair_chunks
from normloom.near_duplicates.ray.removal import shared_duplicates
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.duplicates import duplicates


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


def made_texts(seed: int, n: int) -> list[str]:
    """Return texts of few words, with equal ones, light edits of each other, and a few empty ones."""
    rng = np.random.default_rng(seed)
    words = ["red", "fox", "sea", "old", "tall", "Fox", "sees", "a", "ship", "ships"]
    texts: list[str] = []
    for _ in range(n):
        if texts and rng.random() < 0.6:
            parts = texts[rng.integers(0, len(texts))].split() or ["x"]
            parts[rng.integers(0, len(parts))] = str(rng.choice(words))
        else:
            parts = rng.choice(words, rng.integers(0, 14)).tolist()
        texts.append(" ".join(parts))
    return texts


@pytest.mark.parametrize(
    ("tau", "jaccard", "alike"), [(10, 0.5, 0.8), (17, 0.3, 0.5), (3, 0.9, 0.9), (10, 0.0, None), (1, 0.6, 0.6)]
)
@pytest.mark.parametrize("seed", range(2))
def test_what_goes_is_what_goes_in_one_process(seed: int, tau: int, jaccard: float, alike: float | None) -> None:
    """Equal codes, equal distances and equal texts among them: the keeper is the same each time."""
    texts, features = made_texts(seed, 240), Features()
    rule = {"features": features, "tau": tau, "jaccard": jaccard, "alike": alike}
    wanted = find_duplicates(texts, **rule)  # type: ignore[arg-type]  # of both
    assert len(wanted) > 20
    assert shared_duplicates(texts, **rule, block=(60, 10_000)[seed]).equals(wanted)  # type: ignore[arg-type]  # of both


def test_no_text_and_one_text() -> None:
    for texts in ([], ["one"]):
        assert shared_duplicates(texts, features=Features(), tau=10, jaccard=0.5, alike=0.8).is_empty()


def test_the_stage_shares_the_search_if_it_is_asked_to() -> None:
    texts = made_texts(9, 150)
    rows = pl.DataFrame({"row_id": [f"r{row}" for row in range(len(texts))], "prompt": texts})
    shared, alone = (duplicates.function(rows, Deduplication(block=block)) for block in (60, None))
    assert shared.rows.equals(alone.rows)
    assert shared.metrics == alone.metrics

"""The nearest of codes that grow, against every distance."""

import numpy as np
import pytest

from normloom.near_duplicates.near_codes import NearCodes


@pytest.mark.parametrize("tau", [1, 6, 10, 17, 40])
@pytest.mark.parametrize("known", [0, 1, 60, 12_000])  # few are gone through, many are looked up
def test_the_nearest_code_is_that_of_all_distances(tau: int, known: int) -> None:
    rng = np.random.default_rng(known + tau)
    centres = rng.integers(0, 2**64, 40, dtype=np.uint64)
    codes = centres[rng.integers(0, 40, known + 200)]
    for _ in range(8):
        codes ^= np.where(
            rng.random(len(codes)) < 0.6, np.uint64(1) << rng.integers(0, 64, len(codes), dtype=np.uint64), np.uint64(0)
        )
    near, at_hand = NearCodes(codes[:known], tau), codes[:known]
    for code in codes[known:]:
        distances = np.bitwise_count(at_hand ^ code)
        expected = int(distances.argmin()) if len(distances) and distances.min() < tau else None
        assert near.nearest(code) == expected
        if expected is None or rng.random() < 0.3:
            near.add(code)
            at_hand = np.append(at_hand, code)


def test_codes_that_are_added_and_indexed_are_found_as_those_at_hand() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2**20, 900, dtype=np.uint64)  # many are near, and many as near as others
    near = NearCodes(codes[:5], 6, tail=16)
    for place, code in enumerate(codes[5:], start=5):
        distances = np.bitwise_count(codes[:place] ^ code)
        assert near.nearest(code) == (int(distances.argmin()) if distances.min() < 6 else None)
        near.add(code)


def test_a_tau_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="tau is 0"):
        NearCodes(np.empty(0, dtype=np.uint64), 0)

"""Sketches leave out only pairs whose shingles are not similar enough."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.kernels.sketches import empty_sketches, may_reach
from normloom.near_duplicates.simhash import jaccards, pack

WORDS = ("river", "stone", "market", "child", "elder", "winter", "harvest", "letter", "doctor", "promise")
TEXTS = st.lists(st.lists(st.sampled_from((*WORDS, "é", "x")), max_size=40).map(" ".join), min_size=1, max_size=8)


@settings(max_examples=60)
@given(TEXTS, st.sampled_from([0.01, 0.3, 0.5, 1.0]), st.sampled_from([Features(), Features(word_ngrams=(1,))]))
def test_no_pair_that_is_similar_is_left_out(texts: list[str], least: float, features: Features) -> None:
    packed = pack(texts)
    left, right = (places.ravel() for places in np.indices((len(texts), len(texts))))
    possible = may_reach(packed, left, right, features.grams(), least, empty_sketches(len(texts)))
    assert possible[jaccards(packed, left, right, features) >= least].all()


@pytest.mark.parametrize("known", [0, 20])
def test_most_pairs_of_other_words_are_left_out(known: int) -> None:
    rng = random.Random(0)
    texts = [" ".join(f"{rng.getrandbits(40):x}" for _ in range(12)) for _ in range(40)]
    packed, grams, sketches = pack(texts), Features().grams(), empty_sketches(40)
    left, right = np.triu_indices(40, 1)
    may_reach(packed, left[:known], right[:known], grams, 0.3, sketches)
    assert np.count_nonzero(sketches.sizes >= 0) == (known + 1 if known else 0)
    assert not may_reach(packed, left, right, grams, 0.3, sketches).any()
    assert (sketches.sizes > 0).all()

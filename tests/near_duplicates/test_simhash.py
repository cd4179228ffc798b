"""SimHash codes and shingle Jaccard, against a plain Python reading of their definition."""

import os
import subprocess
import sys
import tracemalloc
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from normloom.core.rows.text import normalise
from normloom.near_duplicates import simhash
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.simhash import fingerprints, jaccard, jaccards, pack, shingles

MASK = 2**64 - 1
FEATURES = [
    Features(),
    Features(char_ngrams=(3, 5), weighting="binary"),
    Features(word_ngrams=(1, 2), char_ngrams=()),
    Features(word_ngrams=(3,), char_ngrams=(2,), weighting="binary"),
]


def hash_of(feature: str, kind: int) -> int:
    prime = 0x100000001B3
    state = (0xCBF29CE484222325 ^ kind) * prime & MASK
    for byte in feature.encode("utf-8", "surrogatepass"):
        state = (state ^ byte) * prime & MASK
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        state = (state ^ state >> 33) * factor & MASK
    return state ^ state >> 33


def feature_hashes(text: str, features: Features) -> list[int]:
    hashes = []
    for sizes, units, joint in ((features.char_ngrams, list, ""), (features.word_ngrams, str.split, " ")):
        parts = units(normalise(text))
        for size in sizes:
            width = min(size, len(parts))
            grams = [joint.join(parts[k : k + width]) for k in range(len(parts) - width + 1)] if parts else []
            hashes += [hash_of(gram, 2 * size + len(joint)) for gram in grams]
    return hashes


def code_of(text: str, features: Features) -> int:
    hashes = feature_hashes(text, features)
    if features.weighting == "binary":
        hashes = sorted(set(hashes))
    code = 0
    for bit in range(64):
        votes = sum(1 if value >> bit & 1 else -1 for value in hashes)
        if votes > 0 or (
            hashes and votes == 0 and min((value >> bit | value << 64 - bit) & MASK for value in hashes) & 1
        ):
            code |= 1 << bit
    return code


@settings(max_examples=60)
@given(st.lists(st.text(max_size=40), max_size=4), st.sampled_from(FEATURES))
def test_codes_follow_the_definition(texts: list[str], features: Features) -> None:
    codes = fingerprints(texts, features)
    assert codes.dtype == np.uint64
    assert codes.tolist() == [code_of(text, features) for text in texts]


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.text("aB \t\x1c\x85É"), max_size=8))
def test_a_series_is_normalised_as_strings_are(texts: list[str]) -> None:
    packed, wanted = pack(pl.Series(texts, dtype=pl.String)), pack(texts)
    assert packed.data.tobytes() == wanted.data.tobytes()
    assert packed.bounds.tolist() == wanted.bounds.tolist()


@settings(max_examples=60)
@given(st.text("abc é", max_size=20), st.text("abc é", max_size=20), st.sampled_from(FEATURES))
def test_jaccard_follows_the_definition(a: str, b: str, features: Features) -> None:
    one, other = set(feature_hashes(a, features)), set(feature_hashes(b, features))
    assert shingles(a, features).tolist() == sorted(one)
    expected = len(one & other) / len(one | other) if one | other else 1.0
    assert jaccard(a, b, features) == jaccard(b, a, features) == expected
    assert jaccards(pack([a, b]), np.array([0]), np.array([1]), features).tolist() == [expected]


@pytest.mark.parametrize("features", FEATURES)
def test_short_texts_behave(features: Features) -> None:
    texts = ["", "  ", "a", "b", "no", "😀", "\ud800", "hello"]
    codes = fingerprints(texts, features).tolist()
    assert codes[:2] == [0, 0]
    assert len(set(codes)) == len(texts) - 1
    assert fingerprints([], features).shape == (0,)
    assert jaccard("", " ", features) == 1
    assert jaccard("", "a", features) == 0


def test_codes_ignore_case_and_spacing_and_move_little_with_a_letter() -> None:
    base = "How can I help a neighbour who lost her job and cannot pay the rent this month?"
    codes = fingerprints(
        [base, f"  {base.upper()}\n", base.replace("job", "jobs"), "What is the tallest tree?"], Features()
    )
    distances = np.bitwise_count(codes ^ codes[0]).tolist()
    assert distances[1] == 0
    assert distances[2] < 10
    assert distances[3] > 18


def test_codes_of_short_unrelated_texts_are_spread_evenly() -> None:
    codes = fingerprints([f"{a}{b}{c}de" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"], Features())
    ones = np.unpackbits(codes.view(np.uint8)).mean()
    assert 0.45 < ones < 0.55
    assert max(Counter(codes.tolist()).values()) == 1


@pytest.mark.parametrize("size", [1, 3, 7])
def test_codes_do_not_depend_on_the_texts_beside(size: int) -> None:
    texts = [f"{a} {b}" for a in ("How do I help?", "سلام", "", "of the sea") for b in ("no", "👩‍👧", "İ")]
    apart = [fingerprints(texts[start : start + size], Features()) for start in range(0, len(texts), size)]
    assert np.concatenate(apart).tolist() == fingerprints(texts, Features()).tolist()


def test_codes_do_not_depend_on_the_process() -> None:
    script = (
        "from normloom.near_duplicates.features import Features\n"
        "from normloom.near_duplicates.simhash import fingerprints\n"
        "print(fingerprints(['How do I help?', 'سلام', '👩‍👧'], Features(word_ngrams=(1,))).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1234"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    here = fingerprints(["How do I help?", "سلام", "👩‍👧"], Features(word_ngrams=(1,))).tolist()
    assert done.stdout == f"{here}\n"


@pytest.mark.parametrize(
    "fields", [{"char_ngrams": ()}, {"char_ngrams": (0,)}, {"char_ngrams": (4, 4)}, {"weighting": "idf"}, {"size": 3}]
)
def test_features_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Features(**fields)


def test_a_series_is_never_held_as_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the bytes, twice while they are put together, only lengths and the strings of a slice are held."""
    monkeypatch.setattr(simhash, "_PACKED", 500)
    texts = pl.Series([f"Text {n}" for n in range(50_000)])
    wanted = pack(texts.to_list())
    tracemalloc.start()
    packed = pack(texts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (packed.data.tobytes(), packed.bounds.tolist()) == (wanted.data.tobytes(), wanted.bounds.tolist())
    assert peak < 2 * packed.data.nbytes + 2 * packed.bounds.nbytes + 500_000  # a list of strings: 5 MB

"""The exact pair search against brute force, and the order rules of removal."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.rows.text import normalise
from normloom.near_duplicates import hamming, keepers, sharing, similar_sets
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import clusters, find_clusters, find_duplicates, find_known
from normloom.near_duplicates.hamming import close_pairs, pair_chunks
from normloom.near_duplicates.kernels.sets import keep_distinct
from normloom.near_duplicates.simhash import fingerprints, jaccard, shingles

Codes = npt.NDArray[np.uint64]
TAUS = (*range(1, 18), 20, 21, 40, 64)


def brute_force(codes: Codes, tau: int) -> list[tuple[int, int, int]]:
    distance = np.bitwise_count(codes[:, None] ^ codes[None, :])
    right, left = np.nonzero(np.tril(distance < tau, -1))
    return list(zip(left.tolist(), right.tolist(), distance[right, left].tolist(), strict=True))


def triples(pairs: hamming.ClosePairs) -> list[tuple[int, int, int]]:
    return list(zip(*(column.tolist() for column in pairs), strict=True))


def made_codes(kind: str, n: int, seed: int) -> Codes:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, n, dtype=np.uint64)
    if kind == "skewed":  # bands with few values, as templated prompts give
        codes &= np.uint64(0x00030003000F00FF)
    elif kind == "clustered":  # few centres, a flip of up to 18 bits around each
        codes = codes[rng.integers(0, max(1, n // 20), n)]
        for _ in range(18):
            codes ^= np.where(
                rng.random(n) < 0.5, np.uint64(1) << rng.integers(0, 64, n, dtype=np.uint64), np.uint64(0)
            )
    elif kind == "equal":
        codes = codes[rng.integers(0, max(1, n // 10), n)]
    return codes


@pytest.fixture(params=["buckets", "scan"])
def _search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamming, "_SCANNED_PER_LOOKUP", 0 if request.param == "buckets" else 10**6)


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize("kind", ["random", "skewed", "clustered", "equal"])
@pytest.mark.parametrize("tau", TAUS)
def test_every_pair_is_found_once(kind: str, tau: int) -> None:
    codes = made_codes(kind, 300, tau)
    assert triples(close_pairs(codes, tau)) == brute_force(codes, tau)


@settings(max_examples=80)
@given(
    base=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    flips=st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=20)), max_size=30),
    tau=st.integers(1, 17),
)
def test_every_pair_is_found_whatever_the_flips(base: list[int], flips: list[tuple[int, set[int]]], tau: int) -> None:
    flipped = [base[centre % len(base)] ^ sum(1 << bit for bit in bits) for centre, bits in flips]
    codes = np.array(base + flipped, dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_SCANNED_PER_LOOKUP", 0)
        assert triples(close_pairs(codes, tau)) == brute_force(codes, tau)


def test_every_pair_is_found_at_the_size_where_buckets_are_used() -> None:
    codes = np.concatenate([made_codes("random", 3000, 1), made_codes("clustered", 1500, 2)])
    assert triples(close_pairs(codes, 10)) == brute_force(codes, 10)


@pytest.mark.usefixtures("_search")
def test_chunks_are_bounded_and_together_complete() -> None:
    codes = made_codes("equal", 400, 3)
    chunks = list(pair_chunks(codes, 10, size=50))
    assert len(chunks) > 10
    assert max(len(left) for left, _, _ in chunks) <= 50 + 400
    assert sorted(pair for chunk in chunks for pair in triples(chunk)) == sorted(brute_force(codes, 10))


def test_chunks_do_not_depend_on_the_number_of_threads() -> None:
    codes = np.concatenate([made_codes("clustered", 3000, 8), made_codes("random", 3000, 9)])
    one, two, four = ([triples(chunk) for chunk in pair_chunks(codes, 10, size=100, threads=n)] for n in (1, 2, 4))
    assert one == two == four
    assert sorted(pair for chunk in one for pair in chunk) == sorted(brute_force(codes, 10))


def test_a_bucket_larger_than_a_piece_of_the_search_is_compared_whole() -> None:
    codes = made_codes("random", 6000, 4) & ~np.uint64(0xFFFF) | np.arange(6000, dtype=np.uint64) % np.uint64(2)
    codes[:40] = codes[40:80] ^ np.uint64(0x70000)
    assert triples(close_pairs(codes, 10)) == brute_force(codes, 10)


def test_collapsed_equal_codes_make_few_pairs() -> None:
    codes = np.zeros(200_000, dtype=np.uint64)
    codes[7], codes[9] = 1, 1
    left, right, distance = close_pairs(codes, 10, collapse=True)
    assert len(left) == len(codes) - 1
    assert (left[right == 7], left[right == 9]) == (0, 7)
    assert np.count_nonzero(distance) == 1
    assert not clusters(len(codes), left, right).any()


def test_no_codes_one_code_and_a_tau_that_makes_no_sense() -> None:
    for n in (0, 1):
        assert triples(close_pairs(np.zeros(n, dtype=np.uint64), 10)) == []
    for tau in (0, 65):
        with pytest.raises(ValueError, match="expected 1 to 64"):
            close_pairs(np.zeros(2, dtype=np.uint64), tau)


def greedy(
    texts: list[str], features: Features, tau: int, threshold: float, known: int = 0, alike: float = 2
) -> list[tuple[int, int, int, float]]:
    """Follow the rule row by row, comparing each with all that were kept."""
    codes = fingerprints(texts, features)
    sets = [set(shingles(text, features).tolist()) for text in texts]

    def similarity(one: int, other: int) -> float:
        union = sets[one] | sets[other]
        return len(sets[one] & sets[other]) / len(union) if union else 1.0

    kept: list[int] = []
    duplicates = []
    for row in range(len(texts)):
        near = sorted((int(np.bitwise_count(codes[row] ^ codes[other])), other) for other in kept)
        near = [(d, k) for d, k in near if similarity(row, k) >= (min(threshold, alike) if d < tau else alike)]
        if near and row >= known:
            distance, keeper = near[0]
            duplicates.append((row, keeper, distance, similarity(row, keeper)))
        else:
            kept.append(row)
    return duplicates


@settings(max_examples=40)
@given(
    texts=st.lists(st.text("ab ", max_size=12), max_size=25),
    tau=st.sampled_from([1, 10, 17, 30]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    looked_up=st.booleans(),
)
def test_removal_follows_the_rule_row_by_row(texts: list[str], tau: int, threshold: float, looked_up: bool) -> None:
    features = Features(char_ngrams=(2,))
    with pytest.MonkeyPatch.context() as patch:
        if looked_up:
            patch.setattr(hamming, "_SCANNED_PER_LOOKUP", 0)
        found = find_duplicates(texts, features=features, tau=tau, jaccard=threshold)
    assert found.rows() == greedy(texts, features, tau, threshold)


@st.composite
def edited(draw: st.DrawFn) -> list[str]:
    """Return texts, most of them an earlier one with some words replaced, doubled or left out."""
    word = st.sampled_from(
        ["tell", "me", "of", "the", "red", "fox", "sea", "tall", "old", "bridge", "market", "请问", "租金"]
    )
    texts = [" ".join(draw(st.lists(word, max_size=30)))]
    for _ in range(draw(st.integers(0, 30))):
        words = draw(st.sampled_from(texts)).split()
        for place in draw(st.lists(st.integers(0, max(len(words) - 1, 0)), max_size=3)):
            words[place : place + 1] = draw(st.lists(word, max_size=2))
        texts.append(" ".join(words))
    return texts


@settings(max_examples=150)
@given(
    texts=edited(),
    tau=st.sampled_from([1, 5, 10]),
    alike=st.floats(0.5, 1) | st.sampled_from([0.5, 0.75, 0.8, 1.0]),
    features=st.sampled_from([Features(), Features(char_ngrams=(2,)), Features(char_ngrams=(), word_ngrams=(1, 2))]),
    sizes=st.sampled_from([(1, 9, 1), (5, 4096, 40), (5, 5, 1 << 24), (9, 1, 40)]),
    batched=st.booleans(),
    room=st.sampled_from([1, 4, 1000]),
    known=st.integers(0, 8),
)
def test_texts_that_are_alike_repeat_each_other_whatever_their_codes(  # in batches of any size, or row by row
    texts: list[str],
    tau: int,
    alike: float,
    features: Features,
    sizes: tuple[int, int, int],
    batched: bool,
    room: int,
    known: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keepers, "_BLOCK", sizes[0])
        patch.setattr(keepers, "_BATCH", sizes[1])
        patch.setattr(keepers, "_ROOM", room)
        patch.setattr(hamming, "_SCANNED_PER_LOOKUP", 0 if batched else 10**6)
        patch.setattr(sharing, "_PIECE", 3)
        for name in ("_SIGNED", "_HELD"):  # signatures are made again, and gathered range by range
            patch.setattr(similar_sets, name, sizes[2])
        patch.setattr(similar_sets, "_RANGE", max(sizes[2], 64))
        found = find_duplicates(texts, features=features, tau=tau, jaccard=0.5, alike=alike)
        assert found.rows() == greedy(texts, features, tau, 0.5, alike=alike)
        old, new = texts[:known], texts[known:]
        beside = find_known(new, old, fingerprints(old, features), features=features, tau=tau, jaccard=0.5, alike=alike)
    wanted = greedy(texts, features, tau, 0.5, len(old), alike)
    assert beside.rows() == [(index - len(old), *told) for index, *told in wanted]


def test_similar_sets_are_found_among_thousands_of_texts() -> None:
    """Prompts of one template, of three slots: many share a part of their text, some nearly all of it."""
    rng, features = np.random.default_rng(12), Features()
    slots = [[" ".join(phrases(1, 100 * slot + n)[0].split()[: 3 + slot]) for n in range(12)] for slot in range(3)]
    texts = [" and then ".join(rng.choice(slot) for slot in slots) + f" in town {n % 40}" for n in range(1500)]
    found = find_duplicates(texts, features=features, tau=1, jaccard=1, alike=0.8)
    assert found.rows() == greedy(texts, features, 1, 1.0, alike=0.8)
    assert 100 < len(found) < 1400
    assert found.equals(find_duplicates(texts, features=features, tau=1, jaccard=1, alike=0.8, threads=1))


@given(
    lists=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(sorted), max_size=12),
    first=st.integers(0, 3),
)
def test_lists_that_equal_an_earlier_one_go(lists: list[list[int]], first: int) -> None:
    first = min(first, len(lists))
    begins = np.array([sum(map(len, lists[:number])) for number in range(len(lists))], dtype=np.int64)
    entries = np.array([row for one in lists for row in one], dtype=np.uint32)
    count, end = keep_distinct(begins, entries, first)
    bounds = [*begins[:count].tolist(), end]
    kept = [entries[start:stop].tolist() for start, stop in pairwise(bounds)]
    assert kept == lists[:first] + [one for n, one in enumerate(lists) if n >= first and one not in lists[first:n]]


def phrases(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(["tell", "me", "of", "the", "red", "fox", "sea", "tall", "old"], 7)) for _ in range(n)]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 7, 4096])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["buckets", "scan"])
def test_removal_depends_neither_on_blocks_nor_on_threads(
    block: int, threads: int, threshold: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "_BLOCK", block)
    monkeypatch.setattr(keepers, "_BATCH", 3 * block)
    monkeypatch.setattr(sharing, "_PIECE", 3)
    monkeypatch.setattr(hamming, "_SCANNED_PER_LOOKUP", 0 if kind == "buckets" else 10**6)
    texts, features = phrases(150, 6), Features(char_ngrams=(3,))
    found = find_duplicates(texts, features=features, tau=17, jaccard=threshold, threads=threads)
    assert len(found) > 5
    assert found.rows() == greedy(texts, features, 17, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("tau", [10, 17])
def test_new_texts_beside_known_ones(threshold: float, tau: int) -> None:
    features, pool = Features(char_ngrams=(3,)), phrases(200, 7)
    repeats = set(find_duplicates(pool, features=features, tau=tau, jaccard=threshold)["index"])
    known = [text for row, text in enumerate(pool) if row not in repeats]
    new = [*phrases(60, 8), known[3].upper(), known[5]]
    found = find_known(new, known, fingerprints(known, features), features=features, tau=tau, jaccard=threshold)
    both = find_duplicates([*known, *new], features=features, tau=tau, jaccard=threshold)
    assert found.equals(both.with_columns(pl.col("index") - len(known)))
    assert len(found) > 2
    assert found["keeper"][-2:].to_list() == [3, 5]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_known_texts_stay_even_where_they_repeat_each_other(threshold: float, threads: int) -> None:
    features, pool = Features(char_ngrams=(3,)), phrases(200, 11)
    known = [text for text in pool[:80] for _ in range(2)] + [text.upper() for text in pool[:20]]
    new = [*pool[70:140], *pool[130:200], "0123456789", "0123456789 "]
    wanted = greedy([*known, *new], features, 17, threshold, known=len(known))
    codes = fingerprints(known, features)
    found = find_known(new, known, codes, features=features, tau=17, jaccard=threshold, threads=threads)
    assert found.rows() == [(index - len(known), *told) for index, *told in wanted]
    assert {keeper < len(known) for keeper in found["keeper"]} == {True, False}


def test_no_known_texts_no_new_ones_and_codes_of_other_ones() -> None:
    known, features = ["how tall is the old tower", "How tall is the old tower"], Features()
    codes = fingerprints(known, features)
    rule = {"features": features, "tau": 10, "jaccard": 0.5}
    assert find_known(known[:1], known, codes, **rule).rows() == [(0, 0, 0, 1.0)]  # type: ignore[arg-type]
    assert find_known([], known, codes, **rule).rows() == []  # type: ignore[arg-type]
    assert find_known(["one"], [], codes[:0], **rule).rows() == []  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 codes for 1 known texts"):
        find_known(["one"], known[:1], codes, features=features, tau=10, jaccard=0.5)


def test_equal_normalised_texts_are_always_duplicates() -> None:
    texts = ["Hi", "hi ", "", "  ", "ＨＩ", "other words"]
    found = find_duplicates(texts, features=Features(), tau=1, jaccard=1.0)
    assert found.rows() == [(1, 0, 0, 1.0), (3, 2, 0, 1.0), (4, 0, 0, 1.0)]


def test_a_removed_row_removes_nothing() -> None:
    """In a chain a - b - c where only neighbours are near, b goes and c stays."""
    features, rng = Features(char_ngrams=(2,)), np.random.default_rng(5)
    base = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 60))
    chain = [base, base[:52] + "0123456789", "987654321" + base[9:52] + "0123456789"]
    codes = fingerprints(chain, features)
    ab, bc, ac = (int(np.bitwise_count(codes[i] ^ codes[j])) for i, j in ((0, 1), (1, 2), (0, 2)))
    tau = max(ab, bc) + 1
    assert ac >= tau
    assert find_duplicates(chain, features=features, tau=tau, jaccard=0)["index"].to_list() == [1]


def test_a_dense_cluster_is_removed_without_its_pairs() -> None:
    texts = [f"tell me about the number {n % 7}" for n in range(30_000)]
    found = find_duplicates(texts, features=Features(), tau=1, jaccard=0.9)
    assert found["index"].to_list() == list(range(7, 30_000))
    assert (found["keeper"] == found["index"] % 7).all()


def test_clusters_are_labelled_by_their_smallest_row() -> None:
    assert clusters(6, np.array([4, 1]), np.array([5, 4])).tolist() == [0, 1, 2, 3, 1, 1]
    assert clusters(0, np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []


@settings(max_examples=40)
@given(st.lists(st.text("ab ", max_size=12), max_size=25), st.sampled_from([0.0, 0.3, 0.6]))
def test_text_clusters_are_the_connected_components(texts: list[str], threshold: float) -> None:
    features = Features(char_ngrams=(2,))
    found = find_clusters(texts, features=features, tau=14, jaccard=threshold)
    pairs = [
        (left, right)
        for left, right, _ in brute_force(fingerprints(texts, features), 14)
        if jaccard(texts[left], texts[right], features) >= threshold
    ]
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert found.tolist() == clusters(len(texts), left, right).tolist()
    assert all(
        found[i] == found[j] for i, a in enumerate(texts) for j, b in enumerate(texts) if normalise(a) == normalise(b)
    )


def test_removal_does_not_depend_on_the_process() -> None:
    script = (
        "from normloom.near_duplicates.find import find_duplicates\n"
        "from normloom.near_duplicates.features import Features\n"
        "texts = [f'how many {n % 30} apples grow on {n % 11} trees' for n in range(200)]\n"
        "print(find_duplicates(texts, features=Features(), tau=10, jaccard=0.5).rows())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    texts = [f"how many {n % 30} apples grow on {n % 11} trees" for n in range(200)]
    assert done.stdout == f"{find_duplicates(texts, features=Features(), tau=10, jaccard=0.5).rows()}\n"

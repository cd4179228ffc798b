"""Common word runs and similar shingle sets against comparing everything with everything."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import similar_to_known
from normloom.near_duplicates.overlap import Overlap, find_overlaps, words
from normloom.near_duplicates.simhash import jaccard

WORDS = st.sampled_from(["a", "b", "c", "Fox", "fox", "sea,", "über", "ÜBER", "海", "x-y"])
TEXTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=6)


def brute_force(texts: list[str], items: list[str], size: int, least_words: int, share: float) -> list[Overlap]:
    """Compare every run of every text with every run of every item, and look at every word for the longest stretch."""
    found = []
    for number, text in enumerate(texts):
        said = words(text)
        for place, item in enumerate(items):
            own = words(item)
            n = min(size, len(own))
            if len(own) < least_words:
                continue
            common = [
                (at, of)
                for at in range(len(said) - n + 1)
                for of in range(len(own) - n + 1)
                if [word for word, _, _ in said[at : at + n]] == [word for word, _, _ in own[of : of + n]]
            ]
            covered = {of + k for _, of in common for k in range(n)}
            if not common or len(covered) / len(own) < share:
                continue
            shared = "".join("x" if any(at <= k < at + n for at, _ in common) else " " for k in range(len(said)))
            longest = max(re.finditer("x+", shared), key=lambda run: (len(run.group()), -run.start()))
            start, stop = said[longest.start()][1], said[longest.end() - 1][2]
            found.append(Overlap(number, place, len(covered) / len(own), start, stop))
    return found


@settings(max_examples=150)
@given(
    texts=TEXTS,
    items=TEXTS,
    size=st.integers(2, 6),
    least_words=st.integers(2, 4),
    share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_overlaps_are_those_of_all_runs(
    texts: list[str], items: list[str], size: int, least_words: int, share: float
) -> None:
    found = list(find_overlaps(texts, items, size=size, least_words=least_words, share=share))
    assert found == brute_force(texts, items, size, least_words, share)


def test_the_span_is_the_text_s_own() -> None:
    item = "How do I pick the lock of a neighbour's front door?"
    text = "Please tell me: HOW do I pick the lock of a neighbour’s front door, quickly?"
    [found] = find_overlaps([text], [item], size=8, least_words=4, share=0.5)
    assert text[found.start : found.stop] == "HOW do I pick the lock of a neighbour’s front door"
    assert found.share == 1


def test_a_short_item_counts_as_a_whole_or_not_at_all() -> None:
    def found(text: str, item: str) -> int:
        return len(list(find_overlaps([text], [item], size=8, least_words=4, share=0.5)))

    assert found("Tell me how to hotwire a car now.", "how to hotwire a car") == 1
    assert found("Tell me how to hotwire a truck now.", "how to hotwire a car") == 0
    assert found("a car", "a car") == 0


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert [word for word, _, _ in words("Wie heißt 北京?")] == ["wie", "heisst", "北", "京"]
    [found] = find_overlaps(["请问如何制作面包呢"], ["如何制作面包"], size=8, least_words=4, share=0.5)
    assert found.share == 1


def test_runs_of_one_word_are_refused() -> None:
    with pytest.raises(ValueError, match="runs of 1 words"):
        list(find_overlaps([], [], size=8, least_words=1, share=0.5))


@settings(max_examples=60)
@given(texts=TEXTS, known=TEXTS, least=st.sampled_from([0.5, 0.7, 1.0]))
def test_similar_texts_are_those_of_all_pairs(texts: list[str], known: list[str], least: float) -> None:
    features = Features(char_ngrams=(2,))
    expected = [
        (row, other, similarity)
        for row, text in enumerate(texts)
        for other, of in enumerate(known)
        if text and of and (similarity := jaccard(text, of, features)) >= least
    ]
    found = similar_to_known(texts, known, features=features, jaccard=least)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected

"""How texts are gathered by what their shingle sets share."""

from itertools import pairwise

import pytest

from normloom.near_duplicates import similar_sets
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.sharing import sharing
from normloom.near_duplicates.simhash import pack

TEXTS = [
    f"tell me of the {colour} fox by the {sea} sea {n}" for n in range(12) for colour in ("red", "old") for sea in "ab"
]


def lists(texts: list[str]) -> set[tuple[int, ...]]:
    with sharing(1) as share:
        sets = similar_sets.empty_sets(pack(texts), Features().grams(), 0.7, share)
    bounds = [*sets.begins.tolist(), len(sets.entries)]
    return {tuple(sets.entries[start:stop].tolist()) for start, stop in pairwise(bounds)}


@pytest.mark.parametrize("size", [16, 100, 1000])
def test_lists_are_the_same_in_however_many_ranges_they_are_gathered(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lists(TEXTS)
    assert len(whole) > 20
    monkeypatch.setattr(similar_sets, "_RANGE", size)
    assert lists(TEXTS) == whole

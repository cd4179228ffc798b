"""How much of a text stands in another, word run by word run: the n-gram overlap by which contamination is found.

How much of a benchmark item a text contains: the share of its words in runs of n words common to both, in any order.
Tulu 3 (arXiv 2411.15124) asks for 8 words and half of the item, GPT-3 (arXiv 2005.14165) for any run of 13.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from normloom.core.rows.text import normalise

# scripts that are written without spaces: each character is a word
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")

Gram = tuple[int, ...]
Place = tuple[int, int]  # an item, and where in it


@dataclass(frozen=True, slots=True)
class Overlap:
    """Text `text` has the `share` of item `item`; the longest run of their common words is its characters to `stop`."""

    text: int
    item: int
    share: float
    start: int
    stop: int


def words(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a text, normalised, each with its first character and the one after the last.

    A word is a run of letters and digits; of scripts without spaces it is a character.
    """
    if text.isascii():
        return [(found.group(), found.start(), found.end()) for found in _WORD.finditer(text.lower())]
    return [(normalise(found.group()), found.start(), found.end()) for found in _WORD.finditer(text)]


def find_overlaps(
    texts: Iterable[str], items: Sequence[str], *, size: int, least_words: int, share: float
) -> Iterator[Overlap]:
    """Yield each text and item of which the text has at least `share`, text by text, the items in order.

    Runs have `size` words. Of an item of fewer words, but at least `least_words`, the text must have all as one run;
    shorter ones are found in no text. With `share` 0 any common run will do. Raises ValueError for runs of one word.
    """
    index = _Index.of(items, size, least_words)
    for number, text in enumerate(texts):
        hits = index.hits(said := words(text))
        for item in sorted(hits):
            covered, runs = hits[item]
            if (found := len(covered) / index.lengths[item]) >= share:
                first, last = _longest(runs)
                yield Overlap(number, item, found, said[first][1], said[last - 1][2])


@dataclass(frozen=True)
class _Index:
    """The runs of all items, by the ids of their words; a run is looked up by its first two words."""

    vocabulary: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    sizes: dict[Gram, list[int]] = field(default_factory=dict)  # of the runs that begin with two words
    places: dict[Gram, list[Place]] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Sequence[str], size: int, least_words: int) -> _Index:
        if min(size, least_words) < 2:  # noqa: PLR2004  # a single word says nothing
            raise ValueError(f"runs of {min(size, least_words)} words: expected 2 or more")
        index = cls()
        for number, item in enumerate(items):
            own = [index.vocabulary.setdefault(word, len(index.vocabulary)) for word, _, _ in words(item)]
            index.lengths.append(len(own))
            if len(own) >= least_words:
                for place, run in _runs(own, min(size, len(own))):
                    if run not in index.places:
                        sizes = index.sizes.setdefault(run[:2], [])
                        sizes += [] if len(run) in sizes else [len(run)]
                    index.places.setdefault(run, []).append((number, place))
        return index

    def hits(self, said: Sequence[tuple[str, int, int]]) -> dict[int, tuple[set[int], list[tuple[int, int]]]]:
        """Return for each item which of its words lie in common runs, and the runs of the text, in order."""
        found: dict[int, tuple[set[int], list[tuple[int, int]]]] = {}
        own = [self.vocabulary.get(word, -1) for word, _, _ in said]
        for start, pair in _runs(own, 2):
            for size in self.sizes.get(pair, ()):
                run = tuple(own[start : start + size])
                for item, place in self.places.get(run, ()) if len(run) == size else ():
                    covered, runs = found.setdefault(item, (set(), []))
                    covered.update(range(place, place + size))
                    runs.append((start, start + size))
        return found


def _runs(ids: list[int], size: int) -> Iterator[tuple[int, Gram]]:
    return ((start, tuple(ids[start : start + size])) for start in range(len(ids) - size + 1))


def _longest(runs: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the longest stretch that runs which overlap cover, the first of several."""
    best, (first, last) = (0, 0), runs[0]
    for start, stop in runs:
        if start > last:
            first, last = start, stop
        last = max(last, stop)
        if last - first > best[1] - best[0]:
            best = (first, last)
    return best

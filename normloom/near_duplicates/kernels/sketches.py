"""Sketches of texts' shingles, which tell most pairs that are not similar apart without comparing shingles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.codes import Position, distance_of
from normloom.near_duplicates.kernels.compiled import Array, compiled
from normloom.near_duplicates.kernels.texts import FlatTexts, distinct_shingles

_WORDS = 8
_1, _SHIFT, _WORD, _IN_WORD = np.uint64(1), np.uint64(55), np.uint64(6), np.uint64(63)


class Sketches(NamedTuple):
    """A bit is set for each shingle of a text, the one that the top 9 bits of its hash say."""

    bits: Array  # (n, 8) uint64
    sizes: Array  # (n,) int64: how many distinct shingles the text has; -1 if it has no sketch yet


def empty_sketches(texts: int) -> Sketches:
    """Return sketches that are made as they are needed, 64 bytes for each text."""
    return Sketches(np.empty((texts, _WORDS), dtype=np.uint64), np.full(texts, -1, dtype=np.int64))


@compiled
def _sketch(texts: FlatTexts, text: Position, grams: Array, sketches: Sketches) -> None:
    shingles, bits = distinct_shingles(texts, text, grams), sketches.bits[text]
    bits[:] = 0
    for value in shingles:
        place = value >> _SHIFT
        bits[np.int64(place >> _WORD)] |= _1 << (place & _IN_WORD)
    sketches.sizes[text] = len(shingles)


@compiled
def may_reach(texts: FlatTexts, left: Array, right: Array, grams: Array, least: float, sketches: Sketches) -> Array:
    """Return which text pairs (left[k], right[k]) may have a shingle Jaccard of at least `least`, bool.

    None is left out that has: a bit that only one of two texts has stands for a shingle that only that one has.
    """
    possible = np.empty(len(left), dtype=np.bool_)
    for k in range(len(left)):
        one, other = left[k], right[k]
        for text in (one, other):
            if sketches.sizes[text] < 0:
                _sketch(texts, text, grams, sketches)
        ours = theirs = np.uint64(0)
        for word in range(_WORDS):
            a, b = sketches.bits[one, word], sketches.bits[other, word]
            ours += distance_of(a & ~b)
            theirs += distance_of(b & ~a)
        shared = min(sketches.sizes[one] - np.int64(ours), sketches.sizes[other] - np.int64(theirs))
        union = sketches.sizes[one] + sketches.sizes[other] - shared
        possible[k] = union == 0 or shared / union >= least
    return possible

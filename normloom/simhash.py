"""64-bit SimHash (Charikar 2002) and exact shingle Jaccard of texts.

Texts are compared in their normal form (`normloom.text.normalise`). A feature is a run of n characters
or n words of it, hashed with 64-bit FNV-1a over its UTF-8 bytes and mixed, so codes are the same in
every process. A text too short for one n-gram is one feature; an empty one has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from normloom.features import Features
from normloom.text import normalise

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])

_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser: FNV-1a alone spreads short runs badly
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_MIX_SHIFT = np.uint64(33)
_ONE, _64 = np.uint64(1), np.uint64(64)
_CONTINUATION, _CONTINUATION_MASK, _SPACE = 0x80, 0xC0, 0x20


class Packed(NamedTuple):
    """Normalised texts as UTF-8: text i is `data[bounds[i]:bounds[i + 1]]` (uint8, int64)."""

    data: Array
    bounds: Array


def compiled(*, cache: bool) -> Callable[[Function], Function]:
    """Compile a function with numba.

    numba's cache looks at the function's own file only: use it where nothing compiled is called in others.
    The function runs without Python's lock, so threads can share its work.
    """

    def decorate(function: Function) -> Function:
        return cast("Function", numba.njit(cache=cache, nogil=True)(function))

    return decorate


def pack(texts: Sequence[str]) -> Packed:
    """Normalise the texts and lay them end to end."""
    encoded = [normalise(text).encode("utf-8", "surrogatepass") for text in texts]
    bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=bounds[1:])
    return Packed(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds)


def fingerprints(texts: Sequence[str] | Packed, features: Features) -> npt.NDArray[np.uint64]:
    """Return the SimHash codes of n texts, (n,) uint64.

    A bit is the sign of its feature votes. A tie goes by one feature, which near-duplicates mostly share:
    always 0 would draw the codes of short texts together.
    """
    packed = texts if isinstance(texts, Packed) else pack(texts)
    codes: npt.NDArray[np.uint64] = _fingerprints(*packed, features.grams(), features.weighting == "binary")
    return codes


def shingles(text: str, features: Features) -> npt.NDArray[np.uint64]:
    """Return the distinct feature hashes of a text, ascending."""
    found: npt.NDArray[np.uint64] = shingle_set(*pack([text]), 0, features.grams())
    return found


def jaccard(a: str, b: str, features: Features) -> float:
    """Return the Jaccard similarity of two texts' shingles; 1 where neither has any."""
    return float(overlap(shingles(a, features), shingles(b, features)))


def jaccards(packed: Packed, left: Array, right: Array, features: Features) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarities of the text pairs (left[k], right[k])."""
    similarity: npt.NDArray[np.float64] = _jaccards(*packed, left, right, features.grams())
    return similarity


@compiled(cache=True)
def _hash(data: Array, start: int, stop: int, kind: int) -> np.uint64:
    state = (_FNV_BASIS ^ np.uint64(kind)) * _FNV_PRIME
    for place in range(start, stop):
        state = (state ^ np.uint64(data[place])) * _FNV_PRIME
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_1
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_2
    return state ^ (state >> _MIX_SHIFT)


@compiled(cache=True)
def _edges(data: Array, start: int, stop: int, gap: int) -> Array:
    """Return where each character (gap 0) or word (gap 1) starts, and after the last `stop + gap`."""
    edges = np.empty(stop - start + 1, dtype=np.int64)
    count = 0
    for place in range(start, stop):
        if gap:
            begins = place == start or data[place - 1] == _SPACE
        else:
            begins = data[place] & _CONTINUATION_MASK != _CONTINUATION
        if begins:
            edges[count] = place
            count += 1
    edges[count] = stop + gap
    return edges[: count + 1]


@compiled(cache=True)
def _feature_hashes(data: Array, start: int, stop: int, grams: Array) -> Array:
    hashes = np.empty((stop - start) * len(grams), dtype=np.uint64)
    count = 0
    if start == stop:
        return hashes
    for gap, size in grams:
        edges = _edges(data, start, stop, gap)
        units = len(edges) - 1
        width = min(size, units)
        for first in range(units - width + 1):
            hashes[count] = _hash(data, edges[first], edges[first + width] - gap, 2 * size + gap)
            count += 1
    return hashes[:count]


@compiled(cache=True)
def shingle_set(data: Array, bounds: Array, text: int, grams: Array) -> Array:
    """Return the distinct feature hashes of one packed text, ascending."""
    hashes = np.sort(_feature_hashes(data, bounds[text], bounds[text + 1], grams))
    count = 0
    for value in hashes:
        if count == 0 or value != hashes[count - 1]:
            hashes[count] = value
            count += 1
    return hashes[:count]


@compiled(cache=True)
def overlap(left: Array, right: Array) -> float:
    """Return the Jaccard similarity of two ascending arrays of distinct values; 1 where both are empty."""
    shared = i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            shared += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    union = len(left) + len(right) - shared
    return shared / union if union else 1.0


@compiled(cache=True)
def _jaccards(data: Array, bounds: Array, left: Array, right: Array, grams: Array) -> Array:
    similarity = np.empty(len(left), dtype=np.float64)
    one = other = np.empty(0, dtype=np.uint64)
    for k in range(len(left)):  # pairs often come with one of their rows in common
        if k == 0 or left[k] != left[k - 1]:
            one = shingle_set(data, bounds, left[k], grams)
        if k == 0 or right[k] != right[k - 1]:
            other = shingle_set(data, bounds, right[k], grams)
        similarity[k] = overlap(one, other)
    return similarity


@compiled(cache=True)
def _decides(hashes: Array, bit: np.uint64) -> np.uint64:
    """Return the bit of the feature whose hash is smallest when rotated by the bit: another one for each bit."""
    return (hashes >> bit | hashes << (_64 - bit) % _64).min() & _ONE  # type: ignore[no-any-return]


@compiled(cache=True)
def _fingerprints(data: Array, bounds: Array, grams: Array, binary: bool) -> Array:  # noqa: FBT001
    codes = np.zeros(len(bounds) - 1, dtype=np.uint64)
    votes = np.empty(64, dtype=np.int64)
    for text in range(len(codes)):
        if binary:
            hashes = shingle_set(data, bounds, text, grams)
        else:
            hashes = _feature_hashes(data, bounds[text], bounds[text + 1], grams)
        if len(hashes) == 0:
            continue
        votes[:] = -len(hashes)
        for value in hashes:
            for bit in range(64):
                votes[bit] += np.int64((value >> np.uint64(bit)) & _ONE) << 1
        for bit in range(64):
            place = np.uint64(bit)
            if votes[bit] > 0 or (votes[bit] == 0 and _decides(hashes, place)):
                codes[text] |= _ONE << place
    return codes

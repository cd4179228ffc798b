"""What numba compiles for near-duplicates: shingles and their codes, codes in buckets, removal, clusters.

All of it stands in one file: numba keeps what it compiled as long as the function's own file stands, whatever becomes
of the compiled functions that it calls in others. The functions run without Python's lock, so threads can share work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Place = int | np.signedinteger[Any]
Function = TypeVar("Function", bound=Callable[..., Any])

ROW_BITS = 32  # a key is `distance << 32 | row`
ROW_MASK = (1 << ROW_BITS) - 1
NO_KEY = np.iinfo(np.int64).max

BANDS = 4
WIDTH = 16
BUCKETS = 1 << WIDTH
_FEW = 24  # codes that are compared faster one by one than as a vector

_PAIRS = np.uint64(0x5555555555555555)
_NIBBLES = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_EACH_BYTE = np.uint64(0x0101010101010101)
_1, _2, _4, _56, _64 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56), np.uint64(64)
_BAND_MASK = np.uint64(BUCKETS - 1)

_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser: FNV-1a alone spreads short runs badly
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_MIX_SHIFT = np.uint64(33)
_CONTINUATION, _CONTINUATION_MASK, _SPACE = 0x80, 0xC0, 0x20


class Packed(NamedTuple):
    """Normalised texts as UTF-8: text i is `data[bounds[i]:bounds[i + 1]]` (uint8, int64)."""

    data: Array
    bounds: Array


class Rule(NamedTuple):
    """What confirms a candidate: texts whose shingles have a Jaccard similarity of at least `jaccard`."""

    texts: Packed
    grams: Array
    jaccard: float


class Plan(NamedTuple):
    """How to search for codes nearer than `tau`."""

    tau: np.uint64
    masks: Array  # (m,) int64: bit patterns to flip, fewest bits first
    flips: Array  # (4,) int64: bits that may differ in a band; -1 leaves the band out
    patterns: Array  # (4,) int64: how many of the masks a band needs
    scan_below: int  # with fewer stored codes, compare with all


class Index(NamedTuple):
    """Codes stored so far, in order and by band; a bucket has room for all codes that will come."""

    size: Array  # (1,) int64
    codes: Array  # (n,) uint64
    rows: Array  # (n,) uint32
    spans: Array  # (4, 65536, 2) uint32: where a bucket starts, and stops so far
    band_codes: Array  # (4, n) uint64
    band_rows: Array  # (4, n) uint32


class Unit(NamedTuple):
    """A piece of a search: the codes at the places start to stop of a band, and how far it has come."""

    band: int
    span: Array  # (2,) int64: start, stop
    at: Array  # (3,) int64: bucket, pattern, place in the bucket


def _compiled(function: Function) -> Function:
    return cast("Function", numba.njit(cache=True, nogil=True)(function))


@_compiled
def _hash(data: Array, start: int, stop: int, kind: int) -> np.uint64:
    state = (_FNV_BASIS ^ np.uint64(kind)) * _FNV_PRIME
    for place in range(start, stop):
        state = (state ^ np.uint64(data[place])) * _FNV_PRIME
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_1
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_2
    return state ^ (state >> _MIX_SHIFT)


@_compiled
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


@_compiled
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


@_compiled
def shingle_set(data: Array, bounds: Array, text: int, grams: Array) -> Array:
    """Return the distinct feature hashes of one packed text, ascending."""
    hashes = np.sort(_feature_hashes(data, bounds[text], bounds[text + 1], grams))
    count = 0
    for value in hashes:
        if count == 0 or value != hashes[count - 1]:
            hashes[count] = value
            count += 1
    return hashes[:count]


@_compiled
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


@_compiled
def similarities(data: Array, bounds: Array, left: Array, right: Array, grams: Array) -> Array:
    """Return the Jaccard similarities of the text pairs (left[k], right[k])."""
    similarity = np.empty(len(left), dtype=np.float64)
    one = other = np.empty(0, dtype=np.uint64)
    for k in range(len(left)):  # pairs often come with one of their rows in common
        if k == 0 or left[k] != left[k - 1]:
            one = shingle_set(data, bounds, left[k], grams)
        if k == 0 or right[k] != right[k - 1]:
            other = shingle_set(data, bounds, right[k], grams)
        similarity[k] = overlap(one, other)
    return similarity


@_compiled
def _decides(hashes: Array, bit: np.uint64) -> np.uint64:
    """Return the bit of the feature whose hash is smallest when rotated by the bit: another one for each bit."""
    return (hashes >> bit | hashes << (_64 - bit) % _64).min() & _1  # type: ignore[no-any-return]


@_compiled
def simhashes(data: Array, bounds: Array, grams: Array, binary: bool) -> Array:  # noqa: FBT001  # numba takes no keywords only
    """Return the SimHash code of each text, (n,) uint64."""
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
                votes[bit] += np.int64((value >> np.uint64(bit)) & _1) << 1
        for bit in range(64):
            place = np.uint64(bit)
            if votes[bit] > 0 or (votes[bit] == 0 and _decides(hashes, place)):
                codes[text] |= _1 << place
    return codes


@_compiled
def distance_of(difference: np.uint64) -> np.uint64:
    """Return the number of set bits."""
    difference = difference - ((difference >> _1) & _PAIRS)
    difference = (difference & _NIBBLES) + ((difference >> _2) & _NIBBLES)
    difference = (difference + (difference >> _4)) & _BYTES
    return (difference * _EACH_BYTE) >> _56


@_compiled
def nearest_of(code: np.uint64, codes: Array, start: Place, stop: Place) -> np.uint64:
    """Return the least distance from the code to one of those at start to stop, 64 if there is none."""
    nearest = _64
    for place in range(np.uint64(start), np.uint64(stop)):  # no test inside, no sign: this loop runs on vectors
        nearest = min(nearest, distance_of(codes[place] ^ code))
    return nearest


@_compiled
def store(code: np.uint64, row: int, index: Index) -> None:
    """Store a code in order; `insert_all` puts it into its buckets."""
    index.codes[index.size[0]] = code
    index.rows[index.size[0]] = row
    index.size[0] += 1


@_compiled
def file(first: int, index: Index) -> None:
    """Put the codes stored from the `first` on into their buckets."""
    for place in range(first, index.size[0]):
        code = index.codes[place]
        for band in range(BANDS):
            bucket = np.int64((code >> np.uint64(band * WIDTH)) & _BAND_MASK)
            free = index.spans[band, bucket, 1]
            index.band_codes[band, free] = code
            index.band_rows[band, free] = index.rows[place]
            index.spans[band, bucket, 1] += 1


@_compiled
def insert_all(codes: Array, first: int, index: Index) -> None:
    """Store codes and put them into their buckets; their rows count from `first`."""
    stored = index.size[0]
    for row in range(len(codes)):
        store(codes[row], first + row, index)
    file(stored, index)


@_compiled
def _found_before(difference: np.uint64, band: int, flips: Array) -> bool:
    for earlier in range(band):
        if np.int64(distance_of((difference >> np.uint64(earlier * WIDTH)) & _BAND_MASK)) <= flips[earlier]:
            return True
    return False


@_compiled
def _look_up(code: np.uint64, band: int, index: Index, plan: Plan, found: Array) -> int:
    """Write `distance << 32 | row` of the stored codes that this band finds and no earlier band does."""
    codes, rows, count = index.band_codes[band], index.band_rows[band], 0
    bucket = np.int64((code >> np.uint64(band * WIDTH)) & _BAND_MASK)
    spans = np.empty((plan.patterns[band], 2), dtype=np.uint32)
    for pattern in range(len(spans)):  # all spans first, so that their loads overlap
        flipped = bucket ^ plan.masks[pattern]
        spans[pattern, 0] = index.spans[band, flipped, 0]
        spans[pattern, 1] = index.spans[band, flipped, 1]
    for start, stop in spans:
        if stop - start > _FEW and nearest_of(code, codes, start, stop) >= plan.tau:
            continue
        for near in range(np.uint64(start), np.uint64(stop)):
            distance = distance_of(codes[near] ^ code)
            if distance < plan.tau and not _found_before(codes[near] ^ code, band, plan.flips):
                found[count] = np.int64(distance) << ROW_BITS | np.int64(rows[near])
                count += 1
    return count


@_compiled
def neighbours(code: np.uint64, index: Index, plan: Plan, found: Array) -> Array:
    """Return `distance << 32 | row` of the stored rows nearer than tau, nearest and then earliest first.

    `found` has room for as many as are stored.
    """
    count = 0
    if index.size[0] >= plan.scan_below:
        for band in range(BANDS):
            count += _look_up(code, band, index, plan, found[count:])
    elif nearest_of(code, index.codes, 0, index.size[0]) < plan.tau:
        for place in range(index.size[0]):
            distance = distance_of(index.codes[place] ^ code)
            if distance < plan.tau:
                found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[place])
                count += 1
    return np.sort(found[:count])


@_compiled
def mark_near(codes: Array, index: Index, plan: Plan, near: Array) -> None:
    """Set `near` at the stored rows that are nearer than tau to one of the codes."""
    found = np.empty(index.size[0], dtype=np.int64)
    for code in codes:
        for key in neighbours(code, index, plan, found):
            near[key & ROW_MASK] = True


@_compiled
def next_pairs(unit: Unit, size: int, index: Index, plan: Plan, pairs: Array) -> tuple[int, bool]:
    """Write pairs until there are `size` or the unit ends; return how many, and whether it ended.

    Each pair of buckets is compared once, from the one with the lower number.
    """
    band, at, spans = unit.band, unit.at, index.spans[unit.band]
    codes, rows = index.band_codes[band], index.band_rows[band]
    count = 0
    while at[0] < len(spans) and spans[at[0], 0] < unit.span[1]:
        bucket = at[0]
        begin, end = np.maximum(spans[bucket, 0], unit.span[0]), np.minimum(spans[bucket, 1], unit.span[1])
        for pattern in range(at[1], plan.patterns[band] if begin < end else 0):
            other = bucket ^ plan.masks[pattern]
            start, stop = np.int64(spans[other, 0]), np.int64(spans[other, 1])
            if other < bucket or start == stop:
                continue
            for place in range(begin + at[2], end):
                if count >= size:
                    at[1], at[2] = pattern, place - begin
                    return count, False
                first = place + 1 if other == bucket else start
                code = codes[place]
                if stop - first > _FEW and nearest_of(code, codes, first, stop) >= plan.tau:
                    continue
                for near in range(np.uint64(first), np.uint64(stop)):
                    distance = distance_of(codes[near] ^ code)
                    if distance < plan.tau and not _found_before(codes[near] ^ code, band, plan.flips):
                        pairs[0, count] = rows[place]
                        pairs[1, count] = rows[near]
                        pairs[2, count] = distance
                        count += 1
            at[2] = 0
        at[0] += 1
        at[1] = at[2] = 0
    return count, True


@_compiled
def _first_similar(found: Array, row: int, rule: Rule) -> int:
    """Return the first of the keys whose row is similar to this one, or `NO_KEY`."""
    if len(found) == 0:
        return NO_KEY
    if rule.jaccard <= 0:
        return found[0]  # type: ignore[no-any-return]
    own = shingle_set(rule.texts.data, rule.texts.bounds, row, rule.grams)
    for key in found:
        other = shingle_set(rule.texts.data, rule.texts.bounds, key & ROW_MASK, rule.grams)
        if overlap(own, other) >= rule.jaccard:
            return key  # type: ignore[no-any-return]
    return NO_KEY


@_compiled
def look_up_rows(start: int, stop: int, codes: Array, index: Index, plan: Plan, rule: Rule, keys: Array) -> None:
    """Write the key of each row's keeper among the stored rows."""
    found = np.empty(index.size[0], dtype=np.int64)
    for row in range(start, stop):
        keys[row] = _first_similar(neighbours(codes[row], index, plan, found), row, rule)


@_compiled
def settle_rows(start: int, stop: int, codes: Array, index: Index, plan: Plan, rule: Rule, keys: Array) -> None:
    """Write the key of each row whose keeper is a nearer row of the block, and store the rows without keeper."""
    first = index.size[0]
    found = np.empty(stop - start, dtype=np.int64)
    for row in range(start, stop):
        below = plan.tau if keys[row] == NO_KEY else np.uint64(keys[row] >> ROW_BITS)
        if nearest_of(codes[row], index.codes, first, index.size[0]) < below:
            count = 0
            for place in range(first, index.size[0]):
                distance = distance_of(codes[row] ^ index.codes[place])
                if distance < below:
                    found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[place])
                    count += 1
            keys[row] = min(keys[row], _first_similar(np.sort(found[:count]), row, rule))
        if keys[row] == NO_KEY:
            store(codes[row], row, index)


@_compiled
def _root(parents: Array, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@_compiled
def join(parents: Array, left: Array, right: Array) -> None:
    """Connect left[k] with right[k]."""
    for k in range(len(left)):
        one, other = _root(parents, left[k]), _root(parents, right[k])
        parents[max(one, other)] = min(one, other)


@_compiled
def roots(parents: Array) -> Array:
    """Return the smallest row that each row is connected with."""
    return np.array([_root(parents, row) for row in range(len(parents))], dtype=np.int64)

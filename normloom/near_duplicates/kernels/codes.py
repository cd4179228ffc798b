"""SimHash codes in buckets: what is nearer than tau to a code, and which codes are close to each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.compiled import Array, compiled

Position = int | np.signedinteger[Any]

ROW_BITS = 32  # a key is `distance << 32 | row`
ROW_MASK = (1 << ROW_BITS) - 1
NO_KEY = np.iinfo(np.int64).max
BATCH_SHIFT = np.uint64(ROW_BITS + 7)  # a row of a batch is kept above a key: distances have 7 bits
KEY_MASK = np.uint64((1 << (ROW_BITS + 7)) - 1)
FIRST = np.int64(0)  # a function that is called with a literal number is compiled for it alone

BITS = 64
BANDS = 5
WIDTH = 13  # bits of a band; the last has 12
BUCKETS = 1 << WIDTH
_FEW = 24  # codes that are compared faster one by one than as a vector

_PAIRS = np.uint64(0x5555555555555555)
_NIBBLES = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_EACH_BYTE = np.uint64(0x0101010101010101)
_1, _2, _4, _32, _56, _64 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(32), np.uint64(56), np.uint64(64)
_BAND_MASK = np.uint64(BUCKETS - 1)


class SearchPlan(NamedTuple):
    """How to search for codes nearer than `tau`."""

    tau: np.uint64
    masks: Array  # (m,) int64: bit patterns to flip, fewest bits first
    flips: Array  # (5,) int64: bits that may differ in a band; -1 leaves the band out
    patterns: Array  # (5,) int64: how many of the masks a band needs
    scan_below: int  # with fewer stored codes, compare with all


class Index(NamedTuple):
    """Codes stored so far, in order and by band; a bucket has room for all codes that will come."""

    size: Array  # (2,) int64: codes stored, and how many of them are in their buckets
    codes: Array  # (n,) uint64
    rows: Array  # (n,) uint32
    spans: Array  # (5, 8192, 2) uint32: where a bucket starts, and stops so far
    band_codes: Array  # (5, n) uint64
    band_rows: Array  # (5, n) uint32


class Unit(NamedTuple):
    """A piece of a search: the codes at the positions start to stop of a band, and how far it has come."""

    band: int
    span: Array  # (2,) int64: start, stop
    at: Array  # (3,) int64: bucket, pattern, position in the bucket


@compiled
def distance_of(difference: np.uint64) -> np.uint64:
    """Return the number of set bits."""
    difference = difference - ((difference >> _1) & _PAIRS)
    difference = (difference & _NIBBLES) + ((difference >> _2) & _NIBBLES)
    difference = (difference + (difference >> _4)) & _BYTES
    return (difference * _EACH_BYTE) >> _56


@compiled
def nearest_of(code: np.uint64, codes: Array, start: Position, stop: Position) -> np.uint64:
    """Return the least distance from the code to one of those at start to stop, 64 if there is none."""
    nearest = _64
    for position in range(np.uint64(start), np.uint64(stop)):  # no test inside, no sign: this loop runs on vectors
        nearest = min(nearest, distance_of(codes[position] ^ code))
    return nearest


@compiled
def empty_spans(codes: Array) -> Array:
    """Return the spans of buckets that have room for these codes, (5, 8192, 2) uint32."""
    spans = np.zeros((BANDS, BUCKETS, 2), dtype=np.uint32)
    for code in codes:
        for band in range(BANDS):
            spans[band, np.int64((code >> np.uint64(band * WIDTH)) & _BAND_MASK), 0] += 1
    for band in range(BANDS):
        start = np.int64(0)
        for bucket in range(BUCKETS):
            size = np.int64(spans[band, bucket, 0])
            spans[band, bucket] = start
            start += size
    return spans


@compiled
def store(code: np.uint64, row: int, index: Index) -> None:
    """Store a code in order; `file` puts it into its buckets."""
    index.codes[index.size[0]] = code
    index.rows[index.size[0]] = row
    index.size[0] += 1


@compiled
def file(index: Index) -> None:
    """Put the codes that are stored in order only into their buckets."""
    for position in range(index.size[1], index.size[0]):
        code = index.codes[position]
        for band in range(BANDS):
            bucket = np.int64((code >> np.uint64(band * WIDTH)) & _BAND_MASK)
            free = index.spans[band, bucket, 1]
            index.band_codes[band, free] = code
            index.band_rows[band, free] = index.rows[position]
            index.spans[band, bucket, 1] += 1
    index.size[1] = index.size[0]


@compiled
def insert_all(codes: Array, first: int, index: Index) -> None:
    """Store codes and put them into their buckets; their rows count from `first`."""
    for row in range(len(codes)):
        store(codes[row], first + row, index)
    file(index)


@compiled
def _found_before(difference: np.uint64, band: int, flips: Array) -> bool:
    for earlier in range(band):
        if np.int64(distance_of((difference >> np.uint64(earlier * WIDTH)) & _BAND_MASK)) <= flips[earlier]:
            return True
    return False


@compiled
def _look_up(code: np.uint64, band: int, index: Index, plan: SearchPlan, found: Array) -> int:
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


@compiled
def near_rows(
    piece: tuple[int, int, int], start: int, batch: Index, index: Index, plan: SearchPlan, pairs: Array, count: int
) -> int:
    """Write the pairs of a code of a batch and an earlier stored one that a piece of a band finds.

    The batch's rows count from `start`; the piece is (band, first bucket, last bucket). Pairs are written as `row -
    start << 39 | distance << 32 | other`, after the `count` that are there. Returns how many there are now; -1 if there
    is no room for all.
    """
    band, first, last = piece
    own_codes, own_rows = batch.band_codes[band], batch.band_rows[band]
    codes, rows = index.band_codes[band], index.band_rows[band]
    for bucket in range(first, last):
        begin, end = np.uint64(batch.spans[band, bucket, 0]), np.uint64(batch.spans[band, bucket, 1])
        for pattern in range(plan.patterns[band] if begin < end else 0):
            other = bucket ^ plan.masks[pattern]
            low, high = index.spans[band, other, 0], index.spans[band, other, 1]
            for position in range(begin, end if low < high else begin):
                code = own_codes[position]
                if high - low > _FEW and nearest_of(code, codes, low, high) >= plan.tau:
                    continue
                for near in range(np.uint64(low), np.uint64(high)):
                    distance = distance_of(codes[near] ^ code)
                    if (
                        distance < plan.tau
                        and rows[near] < own_rows[position]
                        and not _found_before(codes[near] ^ code, band, plan.flips)
                    ):
                        if count == len(pairs):
                            return -1
                        place = np.uint64(own_rows[position]) - np.uint64(start)
                        pairs[count] = place << BATCH_SHIFT | distance << _32 | np.uint64(rows[near])
                        count += 1
    return count


@compiled
def neighbours(code: np.uint64, index: Index, plan: SearchPlan, found: Array) -> Array:
    """Return `distance << 32 | row` of the stored rows nearer than tau, nearest and then earliest first.

    `found` has room for as many as are stored.
    """
    count = 0
    if index.size[0] >= plan.scan_below:
        for band in range(BANDS):
            count += _look_up(code, band, index, plan, found[count:])
    elif nearest_of(code, index.codes, FIRST, index.size[0]) < plan.tau:
        for position in range(index.size[0]):
            distance = distance_of(index.codes[position] ^ code)
            if distance < plan.tau:
                found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[position])
                count += 1
    return np.sort(found[:count])


@compiled
def mark_near(codes: Array, index: Index, plan: SearchPlan, near: Array) -> None:
    """Set `near` at the stored rows that are nearer than tau to one of the codes."""
    found = np.empty(index.size[0], dtype=np.int64)
    for code in codes:
        for key in neighbours(code, index, plan, found):
            near[key & ROW_MASK] = True


@compiled
def next_pairs(unit: Unit, size: int, index: Index, plan: SearchPlan, pairs: Array) -> tuple[int, bool]:
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
            for position in range(begin + at[2], end):
                if count >= size:
                    at[1], at[2] = pattern, position - begin
                    return count, False
                first = position + 1 if other == bucket else start
                code = codes[position]
                if stop - first > _FEW and nearest_of(code, codes, first, stop) >= plan.tau:
                    continue
                for near in range(np.uint64(first), np.uint64(stop)):
                    distance = distance_of(codes[near] ^ code)
                    if distance < plan.tau and not _found_before(codes[near] ^ code, band, plan.flips):
                        pairs[0, count] = rows[position]
                        pairs[1, count] = rows[near]
                        pairs[2, count] = distance
                        count += 1
            at[2] = 0
        at[0] += 1
        at[1] = at[2] = 0
    return count, True

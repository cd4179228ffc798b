"""Exact search for all pairs of 64-bit codes that differ in few bits.

A pigeonhole argument over four bands of 16 bits (docs/decisions/0001-near-duplicates.md): if band b may
differ in t_b bits and the t_b + 1 add up to tau, two codes that differ by more in every band are at least
tau apart. So a pair nearer than tau lies, for some band, in two buckets whose numbers differ by at most t_b
bits. All pairs of such buckets are compared code by code (docs/decisions/0009-buckets-against-buckets.md):
nothing is missed, and every distance is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from normloom.simhash import Array, compiled

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]

Place = int | np.signedinteger[Any]

ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1

_BANDS = 4
_WIDTH = 16
_BUCKETS = 1 << _WIDTH
_MOST_FLIPS = 4  # where a band needs more (tau over 20), comparing with all codes is cheaper than looking up
_SCANNED_PER_LOOKUP = 8  # codes compared in the time of one bucket lookup
_FEW = 24  # codes that are compared faster one by one than as a vector
_UNITS = 64  # pieces of a search; a thread takes one after another
_LEAST = 256  # codes in a piece

_PAIRS = np.uint64(0x5555555555555555)
_NIBBLES = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_EACH_BYTE = np.uint64(0x0101010101010101)
_1, _2, _4, _56, _64 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56), np.uint64(64)
_BAND_MASK = np.uint64(_BUCKETS - 1)


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


class _Unit(NamedTuple):
    """A piece of a search: the codes at the places start to stop of a band, and how far it has come."""

    band: int
    span: Array  # (2,) int64: start, stop
    at: Array  # (3,) int64: bucket, pattern, place in the bucket


def close_pairs(codes: npt.NDArray[np.uint64], tau: int, *, collapse: bool = False) -> Pairs:
    """Return every pair of rows with Hamming distance < `tau` as (left, right, distance), left < right.

    Sorted by right, then left. With `collapse`, a row whose code came before is paired with the first such
    row alone, which stands for all of them: m equal codes make m - 1 pairs instead of m (m - 1) / 2.
    Raises ValueError for a `tau` outside 1..64.
    """
    chunks = list(pair_chunks(codes, tau, collapse=collapse))
    left, right, distance = np.concatenate([np.empty((3, 0), dtype=np.int64), *map(np.stack, chunks)], axis=1)
    order = np.lexsort((left, right))
    return left[order], right[order], distance[order]


def pair_chunks(
    codes: npt.NDArray[np.uint64],
    tau: int,
    *,
    collapse: bool = False,
    size: int = 1 << 20,
    threads: int | None = None,
) -> Iterator[Pairs]:
    """Yield the pairs of `close_pairs` in chunks of at most `size` + n pairs, not sorted.

    There is at least one. Chunks and their order are the same for any number of `threads` (all cores by
    default). The search takes some 70 bytes a code, and 24 bytes for each of `size` pairs in each thread.
    """
    plan = plan_for(tau)
    rows = np.arange(len(codes), dtype=np.int64)
    if collapse:
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        repeats = rows[first[inverse] != rows]
        yield first[inverse][repeats], repeats, np.zeros_like(repeats)
        rows = np.sort(first)
        codes = codes[rows]
    if len(codes) < plan.scan_below:
        index, plan = _one_bucket(codes), plan._replace(masks=plan.masks[:1], patterns=np.array([1, 0, 0, 0]))
    else:
        index = empty_index(codes)
        insert_all(codes, 0, index)
    for one, other, distance in _in_order(index, plan, size, threads or core_count()):
        yield rows[np.minimum(one, other)], rows[np.maximum(one, other)], distance.astype(np.int64)


def core_count() -> int:
    """Return how many threads a search uses: the cores of this process, or what NUMBA_NUM_THREADS says."""
    count: int = numba.config.NUMBA_NUM_THREADS
    return count


def plan_for(tau: int) -> Plan:
    """Return how to search at a threshold. Raises ValueError for a `tau` outside 1..64."""
    if not 1 <= tau <= _BANDS * _WIDTH:
        raise ValueError(f"tau is {tau}: expected 1 to 64 bits")
    flips = [(tau + _BANDS - 1 - band) // _BANDS - 1 for band in range(_BANDS)]  # the flips + 1 add up to tau
    most = min(flips[0], _MOST_FLIPS)
    masks = [sum(1 << bit for bit in bits) for count in range(most + 1) for bits in combinations(range(_WIDTH), count)]
    patterns = [sum(mask.bit_count() <= allowed for mask in masks) for allowed in flips]
    scan_below = _SCANNED_PER_LOOKUP * sum(patterns) if flips[0] <= _MOST_FLIPS else 1 << ROW_BITS
    return Plan(
        np.uint64(tau), np.array(masks, np.int64), np.array(flips, np.int64), np.array(patterns, np.int64), scan_below
    )


def empty_index(codes: npt.NDArray[np.uint64]) -> Index:
    """Return an index with room for these codes, none of them stored."""
    n = len(codes)
    spans = np.zeros((_BANDS, _BUCKETS, 2), dtype=np.uint32)
    for band in range(_BANDS):
        buckets = (codes >> np.uint64(band * _WIDTH)).astype(np.uint16)
        sizes = np.bincount(buckets, minlength=_BUCKETS)
        spans[band] = (np.cumsum(sizes) - sizes)[:, None]
    return Index(
        size=np.zeros(1, dtype=np.int64),
        codes=np.empty(n, dtype=np.uint64),
        rows=np.empty(n, dtype=np.uint32),
        spans=spans,
        band_codes=np.empty((_BANDS, n), dtype=np.uint64),
        band_rows=np.empty((_BANDS, n), dtype=np.uint32),
    )


def _one_bucket(codes: npt.NDArray[np.uint64]) -> Index:
    """Return an index of one band with all codes in one bucket."""
    n, rows = len(codes), np.arange(len(codes), dtype=np.uint32)
    spans = np.array([[[0, n]]], dtype=np.uint32)
    return Index(np.array([n]), codes, rows, spans, codes[None], rows[None])


def _in_order(index: Index, plan: Plan, size: int, threads: int) -> Iterator[Array]:
    """Yield the pairs of all units in the order of the units, a few of them in work at once."""
    units = deque(_units(index, plan))
    room = int((index.spans[..., 1] - index.spans[..., 0]).max(initial=0))

    def advance(unit: _Unit) -> tuple[_Unit, Array, bool]:
        found = np.empty((3, size + room), dtype=np.uint32)
        count, ended = _next_pairs(unit, size, index, plan, found)
        return unit, found[:, :count].copy(), ended

    with ThreadPoolExecutor(threads) as pool:
        working: deque[Future[tuple[_Unit, Array, bool]]] = deque()
        while units or working:
            while units and len(working) < 2 * threads:
                working.append(pool.submit(advance, units.popleft()))
            unit, found, ended = working.popleft().result()
            if not ended:
                working.appendleft(pool.submit(advance, unit))
            yield found


def _units(index: Index, plan: Plan) -> Iterator[_Unit]:
    """Cut the bands that the plan needs into pieces of about as many codes, at least one."""
    n, bands = index.band_codes.shape[1], len(index.spans)
    pieces = min(_UNITS // bands, n // _LEAST + 1)
    for band in np.flatnonzero(plan.patterns[:bands]).tolist():
        for start, stop in pairwise(np.linspace(0, n, pieces + 1, dtype=np.int64).tolist()):
            bucket = int(np.searchsorted(index.spans[band, :, 1], start, side="right"))
            yield _Unit(band, np.array([start, stop]), np.array([bucket, 0, 0]))


@compiled(cache=True)
def distance_of(difference: np.uint64) -> np.uint64:
    """Return the number of set bits."""
    difference = difference - ((difference >> _1) & _PAIRS)
    difference = (difference & _NIBBLES) + ((difference >> _2) & _NIBBLES)
    difference = (difference + (difference >> _4)) & _BYTES
    return (difference * _EACH_BYTE) >> _56


@compiled(cache=True)
def nearest_of(code: np.uint64, codes: Array, start: Place, stop: Place) -> np.uint64:
    """Return the least distance from the code to one of those at start to stop, 64 if there is none."""
    nearest = _64
    for place in range(np.uint64(start), np.uint64(stop)):  # no test inside, no sign: this loop runs on vectors
        nearest = min(nearest, distance_of(codes[place] ^ code))
    return nearest


@compiled(cache=True)
def store(code: np.uint64, row: int, index: Index) -> None:
    """Store a code in order; `insert_all` puts it into its buckets."""
    index.codes[index.size[0]] = code
    index.rows[index.size[0]] = row
    index.size[0] += 1


@compiled(cache=True)
def file(first: int, index: Index) -> None:
    """Put the codes stored from the `first` on into their buckets."""
    for place in range(first, index.size[0]):
        code = index.codes[place]
        for band in range(_BANDS):
            bucket = np.int64((code >> np.uint64(band * _WIDTH)) & _BAND_MASK)
            free = index.spans[band, bucket, 1]
            index.band_codes[band, free] = code
            index.band_rows[band, free] = index.rows[place]
            index.spans[band, bucket, 1] += 1


@compiled(cache=True)
def insert_all(codes: Array, first: int, index: Index) -> None:
    """Store codes and put them into their buckets; their rows count from `first`."""
    stored = index.size[0]
    for row in range(len(codes)):
        store(codes[row], first + row, index)
    file(stored, index)


@compiled(cache=True)
def _found_before(difference: np.uint64, band: int, flips: Array) -> bool:
    for earlier in range(band):
        if np.int64(distance_of((difference >> np.uint64(earlier * _WIDTH)) & _BAND_MASK)) <= flips[earlier]:
            return True
    return False


@compiled(cache=True)
def _look_up(code: np.uint64, band: int, index: Index, plan: Plan, found: Array) -> int:
    """Write `distance << 32 | row` of the stored codes that this band finds and no earlier band does."""
    codes, rows, count = index.band_codes[band], index.band_rows[band], 0
    bucket = np.int64((code >> np.uint64(band * _WIDTH)) & _BAND_MASK)
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


@compiled(cache=True)
def neighbours(code: np.uint64, index: Index, plan: Plan, found: Array) -> Array:
    """Return `distance << 32 | row` of the stored rows nearer than tau, nearest and then earliest first.

    `found` has room for as many as are stored.
    """
    count = 0
    if index.size[0] >= plan.scan_below:
        for band in range(_BANDS):
            count += _look_up(code, band, index, plan, found[count:])
    elif nearest_of(code, index.codes, 0, index.size[0]) < plan.tau:
        for place in range(index.size[0]):
            distance = distance_of(index.codes[place] ^ code)
            if distance < plan.tau:
                found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[place])
                count += 1
    return np.sort(found[:count])


@compiled(cache=True)
def mark_near(codes: Array, index: Index, plan: Plan, near: Array) -> None:
    """Set `near` at the stored rows that are nearer than tau to one of the codes."""
    found = np.empty(index.size[0], dtype=np.int64)
    for code in codes:
        for key in neighbours(code, index, plan, found):
            near[key & ROW_MASK] = True


@compiled(cache=True)
def _next_pairs(unit: _Unit, size: int, index: Index, plan: Plan, pairs: Array) -> tuple[int, bool]:
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

"""Exact search for near-duplicates among 64-bit codes, and what follows from it: removal and clusters.

The search is a pigeonhole argument over four bands of 16 bits (docs/decisions/0001-near-duplicates.md).
If band b may differ in t_b bits and the t_b + 1 add up to tau, two codes that differ by more in every
band are at least tau apart. So a code finds all its neighbours in the buckets reached by flipping up to
t_b bits of each band. Nothing is missed and every candidate's distance is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normloom.features import Features
from normloom.simhash import Array, Packed, compiled, fingerprints, jaccards, overlap, pack, shingle_set

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]

_BANDS = 4
_WIDTH = 16
_BUCKETS = 1 << _WIDTH
_MOST_FLIPS = 4  # where a band needs more (tau over 20), comparing with all codes is cheaper than looking up
_SCANNED_PER_LOOKUP = 8  # codes compared in the time of one bucket lookup
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1

_BAND_MASK = np.uint64(_BUCKETS - 1)
_PAIRS = np.uint64(0x5555555555555555)
_NIBBLES = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_EACH_BYTE = np.uint64(0x0101010101010101)
_1, _2, _4, _56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Row `index` repeats the kept row `keeper`: their Hamming distance and shingle Jaccard."""

    index: int
    keeper: int
    distance: int
    jaccard: float


class _Plan(NamedTuple):
    """How to search for codes nearer than `tau`."""

    tau: int
    masks: Array  # (m,) uint64: bit patterns to flip, fewest bits first
    flips: Array  # (4,) int64: bits that may differ in a band; -1 leaves the band out
    patterns: Array  # (4,) int64: how many of the masks a band needs
    scan_below: int  # with fewer stored codes, compare with all


class _Index(NamedTuple):
    """Codes stored so far, in order and by band; a bucket has room for all codes that will come."""

    size: Array  # (1,) int64
    codes: Array  # (n,) uint64
    rows: Array  # (n,) int64
    spans: Array  # (4, 65536, 2) uint32: where a bucket starts, and stops so far
    band_codes: Array  # (4, n) uint64
    band_rows: Array  # (4, n) uint32


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
    codes: npt.NDArray[np.uint64], tau: int, *, collapse: bool = False, size: int = 1 << 20
) -> Iterator[Pairs]:
    """Yield the pairs of `close_pairs` in chunks of at least `size` pairs and at most `size` + n."""
    plan = _plan(tau)
    rows = np.arange(len(codes), dtype=np.int64)
    if collapse:
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        repeats = rows[first[inverse] != rows]
        yield first[inverse][repeats], repeats, np.zeros_like(repeats)
        rows = np.sort(first)
        codes = codes[rows]
    index = _index(codes)
    _insert_all(codes, index)
    found = np.empty((3, size + len(codes)), dtype=np.int64)
    step = 0
    while step >= 0:
        step, count = _next_pairs(step, size, index, plan, found)
        left, right, distance = found[:, :count].copy()
        yield rows[left], rows[right], distance


def find_duplicates(texts: Sequence[str] | Packed, *, features: Features, tau: int, jaccard: float) -> list[Duplicate]:
    """Return the rows to remove, in order.

    Rows are taken in order. A row is a duplicate when its code is nearer than `tau` to the code of an
    earlier row that was kept and, where `jaccard` > 0, their shingles are at least that similar. Its keeper
    is the nearest such row, of equally near ones the earliest. Equal normalised texts are always duplicates.
    """
    packed = texts if isinstance(texts, Packed) else pack(texts)
    codes = fingerprints(packed, features)
    keepers, distances = _sweep(codes, _index(codes), _plan(tau), packed.data, packed.bounds, features.grams(), jaccard)
    rows = np.flatnonzero(keepers >= 0)
    similarity = jaccards(packed, rows, keepers[rows], features)
    found = zip(rows.tolist(), keepers[rows].tolist(), distances[rows].tolist(), similarity.tolist(), strict=True)
    return [Duplicate(*fields) for fields in found]


def find_clusters(texts: Sequence[str], *, features: Features, tau: int, jaccard: float) -> npt.NDArray[np.int64]:
    """Return for each of n texts the smallest index in its cluster, (n,) int64.

    Clusters are the connected components of near-duplicate pairs (distance < `tau`, shingle Jaccard >= `jaccard`).
    """
    packed = pack(texts)
    first: dict[bytes, int] = {}
    slices = pairwise(packed.bounds.tolist())
    parents = np.array(
        [first.setdefault(packed.data[a:b].tobytes(), i) for i, (a, b) in enumerate(slices)], dtype=np.int64
    )
    rows = np.array(list(first.values()), dtype=np.int64)
    for left, right, _ in pair_chunks(fingerprints(packed, features)[rows], tau):
        labels = _roots(parents)
        apart = labels[rows[left]] != labels[rows[right]]
        one, other = rows[left[apart]], rows[right[apart]]
        if jaccard > 0:
            similar = jaccards(packed, one, other, features) >= jaccard
            one, other = one[similar], other[similar]
        _join(parents, one, other)
    return _roots(parents)


def clusters(n: int, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each of n rows the smallest row that the pairs connect it with, (n,) int64."""
    parents = np.arange(n, dtype=np.int64)
    _join(parents, left, right)
    return _roots(parents)


def _plan(tau: int) -> _Plan:
    if not 1 <= tau <= _BANDS * _WIDTH:
        raise ValueError(f"tau is {tau}: expected 1 to 64 bits")
    flips = [(tau + _BANDS - 1 - band) // _BANDS - 1 for band in range(_BANDS)]  # the flips + 1 add up to tau
    most = min(flips[0], _MOST_FLIPS)
    masks = [sum(1 << bit for bit in bits) for count in range(most + 1) for bits in combinations(range(_WIDTH), count)]
    patterns = [sum(mask.bit_count() <= allowed for mask in masks) for allowed in flips]
    scan_below = _SCANNED_PER_LOOKUP * sum(patterns) if flips[0] <= _MOST_FLIPS else 1 << _ROW_BITS
    return _Plan(tau, np.array(masks, np.uint64), np.array(flips, np.int64), np.array(patterns, np.int64), scan_below)


def _index(codes: npt.NDArray[np.uint64]) -> _Index:
    n = len(codes)
    spans = np.zeros((_BANDS, _BUCKETS, 2), dtype=np.uint32)
    for band in range(_BANDS):
        buckets = (codes >> np.uint64(band * _WIDTH)) & _BAND_MASK
        sizes = np.bincount(buckets.astype(np.int64), minlength=_BUCKETS)
        spans[band] = (np.cumsum(sizes) - sizes)[:, None]
    return _Index(
        size=np.zeros(1, dtype=np.int64),
        codes=np.empty(n, dtype=np.uint64),
        rows=np.empty(n, dtype=np.int64),
        spans=spans,
        band_codes=np.empty((_BANDS, n), dtype=np.uint64),
        band_rows=np.empty((_BANDS, n), dtype=np.uint32),
    )


@compiled(cache=True)
def _bits(value: np.uint64) -> int:
    value = value - ((value >> _1) & _PAIRS)
    value = (value & _NIBBLES) + ((value >> _2) & _NIBBLES)
    value = (value + (value >> _4)) & _BYTES
    return np.int64((value * _EACH_BYTE) >> _56)  # type: ignore[return-value]


@compiled(cache=True)
def _insert(code: np.uint64, row: int, index: _Index) -> None:
    index.codes[index.size[0]] = code
    index.rows[index.size[0]] = row
    index.size[0] += 1
    for band in range(_BANDS):
        bucket = np.int64((code >> np.uint64(band * _WIDTH)) & _BAND_MASK)
        place = index.spans[band, bucket, 1]
        index.band_codes[band, place] = code
        index.band_rows[band, place] = row
        index.spans[band, bucket, 1] += 1


@compiled(cache=True)
def _insert_all(codes: Array, index: _Index) -> None:
    for row in range(len(codes)):
        _insert(codes[row], row, index)


@compiled(cache=True)
def _found_before(difference: np.uint64, band: int, flips: Array) -> bool:
    for earlier in range(band):
        if _bits((difference >> np.uint64(earlier * _WIDTH)) & _BAND_MASK) <= flips[earlier]:
            return True
    return False


@compiled(cache=True)
def _scan(code: np.uint64, stop: int, index: _Index, tau: int, found: Array) -> int:
    """Write `distance << 32 | row` of the first `stop` stored codes nearer than tau; return how many."""
    count = 0
    for place in range(stop):
        distance = _bits(index.codes[place] ^ code)
        if distance < tau:
            found[count] = distance << _ROW_BITS | index.rows[place]
            count += 1
    return count


@compiled(cache=True)
def _look_up(code: np.uint64, row: int, band: int, index: _Index, plan: _Plan, found: Array) -> int:
    """Do as `_scan` for the stored rows before `row` that this band finds and no earlier band does."""
    count = 0
    bucket = (code >> np.uint64(band * _WIDTH)) & _BAND_MASK
    spans = np.empty((plan.patterns[band], 2), dtype=np.uint32)
    for pattern in range(len(spans)):  # all spans first, so that their loads overlap
        flipped = bucket ^ plan.masks[pattern]
        spans[pattern, 0] = index.spans[band, flipped, 0]
        spans[pattern, 1] = index.spans[band, flipped, 1]
    for start, stop in spans:
        for place in range(start, stop):
            difference = index.band_codes[band, place] ^ code
            distance = _bits(difference)
            if distance >= plan.tau or _found_before(difference, band, plan.flips):
                continue
            other = np.int64(index.band_rows[band, place])
            if other < row:
                found[count] = distance << _ROW_BITS | other
                count += 1
    return count


@compiled(cache=True)
def _next_pairs(step: int, size: int, index: _Index, plan: _Plan, pairs: Array) -> tuple[int, int]:
    """Write pairs until there are `size`; return the step to go on with (-1 at the end) and how many.

    A step is one row of one band, in the order of its buckets: the next row looks at much the same memory.
    """
    n = len(index.codes)
    scans = n < plan.scan_below
    found = np.empty(n, dtype=np.int64)
    count = 0
    while step < (n if scans else n * _BANDS):
        if count >= size:
            return step, count
        band, place = step // n, step % n
        row = place if scans else int(index.band_rows[band, place])
        code = index.codes[row]
        hits = _scan(code, row, index, plan.tau, found) if scans else _look_up(code, row, band, index, plan, found)
        for key in found[:hits]:
            pairs[0, count] = key & _ROW_MASK
            pairs[1, count] = row
            pairs[2, count] = key >> _ROW_BITS
            count += 1
        step += 1
    return -1, count


@compiled(cache=True)
def _neighbours(code: np.uint64, row: int, index: _Index, plan: _Plan, found: Array) -> Array:
    """Return `distance << 32 | row` of the stored rows nearer than tau, nearest and then earliest first."""
    count = 0
    if index.size[0] < plan.scan_below:
        count = _scan(code, index.size[0], index, plan.tau, found)
    else:
        for band in range(_BANDS):
            count += _look_up(code, row, band, index, plan, found[count:])
    return np.sort(found[:count])


@compiled(cache=False)
def _sweep(
    codes: Array, index: _Index, plan: _Plan, data: Array, bounds: Array, grams: Array, jaccard: float
) -> tuple[Array, Array]:
    """Return each row's keeper (-1 for a kept row) and their distance."""
    keepers = np.full(len(codes), -1, dtype=np.int64)
    distances = np.zeros(len(codes), dtype=np.int64)
    found = np.empty(len(codes), dtype=np.int64)
    for row in range(len(codes)):
        candidates = _neighbours(codes[row], row, index, plan, found)
        if len(candidates):
            own = shingle_set(data, bounds, row, grams)
            for key in candidates:
                keeper = key & _ROW_MASK
                if jaccard <= 0 or overlap(own, shingle_set(data, bounds, keeper, grams)) >= jaccard:
                    keepers[row] = keeper
                    distances[row] = key >> _ROW_BITS
                    break
        if keepers[row] < 0:
            _insert(codes[row], row, index)
    return keepers, distances


@compiled(cache=True)
def _root(parents: Array, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@compiled(cache=True)
def _join(parents: Array, left: Array, right: Array) -> None:
    for k in range(len(left)):
        one, other = _root(parents, left[k]), _root(parents, right[k])
        parents[max(one, other)] = min(one, other)


@compiled(cache=True)
def _roots(parents: Array) -> Array:
    return np.array([_root(parents, row) for row in range(len(parents))], dtype=np.int64)

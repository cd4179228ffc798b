"""Exact search for all pairs of 64-bit codes that differ in few bits.

A pigeonhole argument over five bands of 13 bits (docs/decisions/0001-near-duplicates.md): if band b may
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

import numba
import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.kernels.codes import (
    BANDS,
    BITS,
    ROW_BITS,
    WIDTH,
    Index,
    SearchPlan,
    Unit,
    empty_spans,
    insert_all,
    next_pairs,
)
from normloom.near_duplicates.kernels.compiled import Array

ClosePairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]

_MOST_FLIPS = 4  # if a band needs more (tau over 25), comparing with all codes is cheaper than looking up
_SCANNED_PER_LOOKUP = 8  # codes compared in the time of one bucket lookup
_UNITS = 64  # pieces of a search; a thread takes one after another
_LEAST = 256  # codes in a piece


def close_pairs(codes: npt.NDArray[np.uint64], tau: int, *, collapse: bool = False) -> ClosePairs:
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
) -> Iterator[ClosePairs]:
    """Yield the pairs of `close_pairs` in chunks of at most `size` + n pairs, not sorted.

    There is at least one. Chunks and their order are the same for any number of `threads` (all cores by
    default). The search takes some 80 bytes a code, and 24 bytes for each of `size` pairs in each thread.
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


def plan_for(tau: int) -> SearchPlan:
    """Return how to search at a threshold. Raises ValueError for a `tau` outside 1..64."""
    if not 1 <= tau <= BITS:
        raise ValueError(f"tau is {tau}: expected 1 to 64 bits")
    flips = [(tau + BANDS - 1 - band) // BANDS - 1 for band in range(BANDS)]  # the flips + 1 add up to tau
    most = min(flips[0], _MOST_FLIPS)
    masks = [sum(1 << bit for bit in bits) for count in range(most + 1) for bits in combinations(range(WIDTH), count)]
    patterns = [sum(mask.bit_count() <= allowed for mask in masks) for allowed in flips]
    scan_below = _SCANNED_PER_LOOKUP * sum(patterns) if flips[0] <= _MOST_FLIPS else 1 << ROW_BITS
    return SearchPlan(
        np.uint64(tau), np.array(masks, np.int64), np.array(flips, np.int64), np.array(patterns, np.int64), scan_below
    )


def empty_index(codes: npt.NDArray[np.uint64]) -> Index:
    """Return an index with room for these codes, none of them stored."""
    n = len(codes)
    return Index(
        size=np.zeros(2, dtype=np.int64),
        codes=np.empty(n, dtype=np.uint64),
        rows=np.empty(n, dtype=np.uint32),
        spans=empty_spans(codes),
        band_codes=np.empty((BANDS, n), dtype=np.uint64),
        band_rows=np.empty((BANDS, n), dtype=np.uint32),
    )


def _one_bucket(codes: npt.NDArray[np.uint64]) -> Index:
    """Return an index of one band with all codes in one bucket."""
    n, rows = len(codes), np.arange(len(codes), dtype=np.uint32)
    spans = np.array([[[0, n]]], dtype=np.uint32)
    return Index(np.array([n, n]), codes, rows, spans, codes[None], rows[None])


def _in_order(index: Index, plan: SearchPlan, size: int, threads: int) -> Iterator[Array]:
    """Yield the pairs of all units in the order of the units, a few of them in work at once."""
    units = deque(_units(index, plan))
    room = int((index.spans[..., 1] - index.spans[..., 0]).max(initial=0))

    def advance(unit: Unit) -> tuple[Unit, Array, bool]:
        found = np.empty((3, size + room), dtype=np.uint32)
        count, ended = next_pairs(unit, size, index, plan, found)
        return unit, found[:, :count].copy(), ended

    with ThreadPoolExecutor(threads) as pool:
        working: deque[Future[tuple[Unit, Array, bool]]] = deque()
        while units or working:
            while units and len(working) < 2 * threads:
                working.append(pool.submit(advance, units.popleft()))
            unit, found, ended = working.popleft().result()
            if not ended:
                working.appendleft(pool.submit(advance, unit))
            yield found


def _units(index: Index, plan: SearchPlan) -> Iterator[Unit]:
    """Cut the bands that the plan needs into pieces of about as many codes, at least one."""
    n, bands = index.band_codes.shape[1], len(index.spans)
    pieces = min(_UNITS // bands, n // _LEAST + 1)
    for band in np.flatnonzero(plan.patterns[:bands]).tolist():
        for start, stop in pairwise(np.linspace(0, n, pieces + 1, dtype=np.int64).tolist()):
            bucket = int(np.searchsorted(index.spans[band, :, 1], start, side="right"))
            yield Unit(band, np.array([start, stop]), np.array([bucket, 0, 0]))

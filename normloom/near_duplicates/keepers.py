"""Which kept row each row repeats: rows are taken in order, and only kept ones are compared with.

A batch of rows is looked up at once: all pairs with nearer codes among the rows kept before it, bucket against bucket,
and within it. Then threads look for the nearest similar row among those kept before, and at last the rows are taken in
order, each compared with those of its batch that were kept. A batch in which too many pairs are near, or too few rows,
is looked up row by row, which takes longer and no memory. The result is the same.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates import hamming
from normloom.near_duplicates.kernels.codes import (
    BANDS,
    BUCKETS,
    NO_KEY,
    Index,
    SearchPlan,
    file,
    insert_all,
    near_rows,
)
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.removal import Batch, confirm_rows, look_up_rows, settle_confirmed, settle_rows
from normloom.near_duplicates.kernels.sets import Rule, Sets, store_sets
from normloom.near_duplicates.sharing import Share, sharing
from normloom.near_duplicates.similar_sets import NO_SETS, empty_sets

_BATCH = 1 << 16  # rows that are looked up at once
_BLOCK = 4096  # of them, if they are looked up one by one
_PIECES = 16  # of a band
_ROOM = 1 << 20  # near pairs of a piece


def keeper_keys(
    codes: npt.NDArray[np.uint64], kept: int, rule: Rule, tau: int, alike: float | None, threads: int | None
) -> npt.NDArray[np.int64]:
    """Return for each row the key of its keeper, `distance << 32 | row`, or `NO_KEY` if it stays.

    The first `kept` rows all stay and are compared with none.
    """
    plan = hamming.plan_for(tau)
    codes = np.require(codes, requirements=("C", "W"))  # numba compiles all kernels again for any other layout
    with sharing(threads) as share:
        sets = empty_sets(rule.texts, rule.grams, alike, share) if alike else NO_SETS
        index = hamming.empty_index(codes)  # not before: making the sets takes as much
        insert_all(codes[:kept], 0, index)
        store_sets(0, kept, sets)
        keys = np.full(len(codes), NO_KEY, dtype=np.int64)
        for start in range(kept, len(codes), _BATCH):
            stop = min(start + _BATCH, len(codes))
            near = None if stop - start < plan.scan_below else _near(start, stop, codes, index, plan, share)
            if near is not None:
                batch = Batch(start, stop, near)
                share(partial(_confirm, batch, codes, sets, rule, keys), start, stop)
                settle_confirmed(batch, codes, index, plan, sets, rule, keys)
                file(index)
                continue
            for begin in range(start, stop, _BLOCK):
                end = min(begin + _BLOCK, stop)
                share(lambda low, high: look_up_rows(low, high, codes, index, plan, sets, rule, keys), begin, end)
                settle_rows(begin, end, codes, index, plan, sets, rule, keys)
                file(index)
    return keys


def _confirm(batch: Batch, codes: Array, sets: Sets, rule: Rule, keys: Array, start: int, stop: int) -> None:
    confirm_rows(start, stop, batch, codes, sets, rule, keys)


def _near(
    start: int, stop: int, codes: Array, index: Index, plan: SearchPlan, share: Share
) -> npt.NDArray[np.uint64] | None:
    """Return all pairs of a row of the batch and a nearer one that was kept or is an earlier one of it, sorted.

    As `row - start << 39 | distance << 32 | other`; None if they are too many.
    """
    batch = hamming.empty_index(codes[start:stop])
    insert_all(codes[start:stop], start, batch)

    def find(first: int, last: int) -> tuple[Array, bool]:
        band, bucket = divmod(first, BUCKETS)
        pairs = np.empty(_ROOM, dtype=np.uint64)
        piece = band, bucket, bucket + last - first
        count = near_rows(piece, start, batch, index, plan, pairs, 0)
        if count >= 0:
            count = near_rows(piece, start, batch, batch, plan, pairs, count)
        return pairs[: max(count, 0)].copy(), count >= 0

    made = share(find, 0, BANDS * BUCKETS, BUCKETS // _PIECES)
    if not all(complete for _, complete in made):
        return None
    near: npt.NDArray[np.uint64] = np.concatenate([pairs for pairs, _ in made])
    near.sort()
    return near

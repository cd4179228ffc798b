"""Which rows repeat which: by their codes and by their shingle sets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.codes import (
    BATCH_SHIFT,
    FIRST,
    KEY_MASK,
    NO_KEY,
    ROW_BITS,
    ROW_MASK,
    Index,
    Position,
    SearchPlan,
    distance_of,
    nearest_of,
    neighbours,
    store,
)
from normloom.near_duplicates.kernels.compiled import Array, compiled
from normloom.near_duplicates.kernels.sets import Rule, Sets, similar_sets, store_set
from normloom.near_duplicates.kernels.texts import distinct_shingles, similarity_to, table_of

_BEFORE, _WITHIN = np.int64(0), np.int64(1)


class Batch(NamedTuple):
    """Rows that are looked up at once, and their near pairs: `row - start << 39 | key`, sorted."""

    start: int
    stop: int
    near: Array  # (m,) uint64


@compiled
def _nearest_similar(row: int, since: Position, codes: Array, sets: Sets, rule: Rule, found: Array) -> int:
    """Return the least key of the similar sets stored from row `since` on, or `NO_KEY`."""
    if sets.least > 1:
        return NO_KEY
    nearest = NO_KEY
    for other in found[: similar_sets(row, since, sets, rule, found)]:
        nearest = min(nearest, np.int64(distance_of(codes[row] ^ codes[other])) << ROW_BITS | other)
    return nearest


@compiled
def _first_similar(found: Array, row: int, rule: Rule) -> int:
    """Return the first of the keys whose row is similar to this one, or `NO_KEY`."""
    if len(found) == 0:
        return NO_KEY
    if rule.jaccard <= 0:
        return found[0]  # type: ignore[no-any-return]  # numba knows the type
    own = distinct_shingles(rule.texts, row, rule.grams)
    table, marks = table_of(own)
    for key in found:
        other = distinct_shingles(rule.texts, key & ROW_MASK, rule.grams)
        if similarity_to(table, marks, len(own), other) >= rule.jaccard:
            return key  # type: ignore[no-any-return]  # numba knows the type
    return NO_KEY


@compiled
def look_up_rows(
    start: int, stop: int, codes: Array, index: Index, plan: SearchPlan, sets: Sets, rule: Rule, keys: Array
) -> None:
    """Write the key of each row's keeper among the stored rows: the nearest within tau, else of the similar sets."""
    found = np.empty(index.size[0], dtype=np.int64)
    for row in range(start, stop):
        keys[row] = _first_similar(neighbours(codes[row], index, plan, found), row, rule)
        if keys[row] == NO_KEY:
            keys[row] = _nearest_similar(row, FIRST, codes, sets, rule, found)


@compiled
def settle_rows(
    start: int, stop: int, codes: Array, index: Index, plan: SearchPlan, sets: Sets, rule: Rule, keys: Array
) -> None:
    """Write the key of each row whose keeper is a nearer row of the block, and store the rows without keeper."""
    first = index.size[0]
    found = np.empty(stop - start, dtype=np.int64)
    for row in range(start, stop):
        below = min(plan.tau, np.uint64(keys[row] >> ROW_BITS))
        if nearest_of(codes[row], index.codes, first, index.size[0]) < below:
            count = 0
            for position in range(first, index.size[0]):
                distance = distance_of(codes[row] ^ index.codes[position])
                if distance < below:
                    found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[position])
                    count += 1
            keys[row] = min(keys[row], _first_similar(np.sort(found[:count]), row, rule))
        if np.uint64(keys[row] >> ROW_BITS) >= plan.tau:
            keys[row] = min(keys[row], _nearest_similar(row, start, codes, sets, rule, found))
        if keys[row] == NO_KEY:
            store(codes[row], row, index)
            store_set(row, sets)


@compiled
def _first_near(batch: Batch, at: int, row: int, within: Position, rule: Rule, keys: Array) -> Position:
    """Return the least key of a row's near pairs, which start at `at`, whose row stays and is similar, or `NO_KEY`.

    `within` says whether of the rows of the batch (`_WITHIN`) or of those before it (`_BEFORE`).
    """
    near = batch.near
    table, marks, size = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint32), 0
    while at < len(near) and np.int64(near[at] >> BATCH_SHIFT) == row - batch.start:
        key = np.int64(near[at] & KEY_MASK)
        other = key & ROW_MASK
        at += 1
        if (other >= batch.start) != within or keys[other] != NO_KEY:
            continue
        if rule.jaccard <= 0:
            return key
        if len(table) == 0:
            own = distinct_shingles(rule.texts, row, rule.grams)
            table, marks = table_of(own)
            size = len(own)
        if similarity_to(table, marks, size, distinct_shingles(rule.texts, other, rule.grams)) >= rule.jaccard:
            return key
    return NO_KEY


@compiled
def _bounds(start: int, stop: int, batch: Batch) -> Array:
    """Return where the near pairs of the rows start to stop start."""
    return np.searchsorted(
        batch.near, np.arange(start - batch.start, stop - batch.start).astype(np.uint64) << BATCH_SHIFT
    )


@compiled
def confirm_rows(start: int, stop: int, batch: Batch, codes: Array, sets: Sets, rule: Rule, keys: Array) -> None:
    """Write the key of each row's keeper among those kept before its batch."""
    found = np.empty(batch.start, dtype=np.int64)
    bounds = _bounds(start, stop, batch)
    for row in range(start, stop):
        keys[row] = _first_near(batch, bounds[row - start], row, _BEFORE, rule, keys)
        if keys[row] == NO_KEY:
            keys[row] = _nearest_similar(row, FIRST, codes, sets, rule, found)


@compiled
def settle_confirmed(
    batch: Batch, codes: Array, index: Index, plan: SearchPlan, sets: Sets, rule: Rule, keys: Array
) -> None:
    """Write the key of each row of the batch whose keeper is a nearer row of it, and store the rows without keeper."""
    start, stop = batch.start, batch.stop
    found = np.empty(stop - start, dtype=np.int64)
    bounds = _bounds(start, stop, batch)
    for row in range(start, stop):
        keys[row] = min(keys[row], _first_near(batch, bounds[row - start], row, _WITHIN, rule, keys))
        if np.uint64(keys[row] >> ROW_BITS) >= plan.tau:
            keys[row] = min(keys[row], _nearest_similar(row, start, codes, sets, rule, found))
        if keys[row] == NO_KEY:
            store(codes[row], row, index)
            store_set(row, sets)


@compiled
def similar_pairs(start: int, stop: int, stored: int, sets: Sets, rule: Rule) -> Array:
    """Return the rows and the stored ones whose sets are similar, (2, m) int64."""
    pairs = np.empty((2, 64), dtype=np.int64)
    found = np.empty(stored, dtype=np.int64)
    count = 0
    for row in range(start, stop):
        for other in found[: similar_sets(row, FIRST, sets, rule, found)]:
            if count == pairs.shape[1]:
                pairs = np.concatenate((pairs, np.empty_like(pairs)), axis=1)
            pairs[0, count] = row
            pairs[1, count] = other
            count += 1
    return pairs[:, :count].copy()


@compiled
def settle_pairs(kinds: Array, bounds: Array, near: Array, distance: Array, keys: Array) -> None:
    """Write the key of each row's keeper, row by row: the nearest kept row whose text equals or repeats its own.

    `kinds` has the number of each row's text; the texts that repeat the one of number k are `near[bounds[k]:bounds[k +
    1]]`, at these distances. Of equal texts one row at most is kept.
    """
    keeper = np.full(len(bounds) - 1, -1, dtype=np.int64)
    for row in range(len(kinds)):
        kind = kinds[row]
        key = NO_KEY if keeper[kind] < 0 else keeper[kind]
        for place in range(bounds[kind], bounds[kind + 1]):
            if keeper[near[place]] >= 0:
                key = min(key, distance[place] << ROW_BITS | keeper[near[place]])
        keys[row] = key
        if key == NO_KEY:
            keeper[kind] = row


@compiled
def mark_rows(pairs: Array, reached: Array, every: np.uint64, sets: Sets, rule: Rule, marks: Array) -> None:
    """Write for each row at which of several taus it goes: a bit each, all of them in `every`.

    `pairs` is (3, pairs), sorted: a row, an earlier one and their distance; `reached` has for each distance the taus
    above it. A row goes if one stays that is within tau or a similar set.
    """
    found = np.empty(len(marks), dtype=np.int64)
    at = 0
    for row in range(len(marks)):
        mark = np.uint64(0)
        while at < pairs.shape[1] and pairs[0, at] == row:
            mark |= reached[pairs[2, at]] & ~marks[pairs[1, at]]
            at += 1
        if mark != every and sets.least <= 1:
            for other in found[: similar_sets(row, FIRST, sets, rule, found)]:
                mark |= every & ~marks[other]
        marks[row] = mark
        if mark != every:
            store_set(row, sets)

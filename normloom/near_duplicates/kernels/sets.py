"""Shingle sets by signatures of their parts: which stored sets are similar to a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.codes import NO_KEY, ROW_BITS
from normloom.near_duplicates.kernels.compiled import Array, compiled
from normloom.near_duplicates.kernels.texts import FlatTexts, distinct_shingles, feature_hashes

_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_EACH_COUNT, _EACH_PART = 0x10001, 0x9E3779B1  # signatures of empty parts differ by their number and count
_ROUNDING = 1e-6  # bounds of sizes are loosened by this: a division may be a little low


class Rule(NamedTuple):
    """What confirms a candidate: texts whose shingles have a Jaccard similarity of at least `jaccard`."""

    texts: FlatTexts
    grams: Array
    jaccard: float


class Sets(NamedTuple):
    """The shingle sets of n texts by their parts, to find the stored ones of a Jaccard similarity of at least `least`.

    A set is dealt into as many parts as the sets of about its size are; a part's signature is the sum of its hashes.
    Two sets that differ in at most d shingles have all but d of their signatures in common.
    """

    least: float
    edges: Array  # (c + 1,) int64: class k is the sets of edges[k] to edges[k + 1] - 1 shingles
    parts: Array  # (c,) int64: how many parts a set of the class has
    sizes: Array  # (n,) int64: shingles of each text
    starts: Array  # (n + 1,) int64: where the signatures of each text start
    signatures: Array  # uint32, in the order of the parts; at the end as many more as any set has
    spans: Array  # (buckets + 1, 2) int64: where a bucket of signatures starts, and stops so far
    entries: Array  # uint32: stored texts by the buckets of their rarest signatures, `tag << row_bits | row`
    row_bits: np.uint32


@compiled
def _class_of(size: int, edges: Array) -> int:
    return int(np.searchsorted(edges, size, side="right")) - 1


@compiled
def _difference(sizes: int, least: float) -> int:
    """Return how many shingles two sets of together `sizes` may not share at a Jaccard similarity of `least`."""
    return int((1 - least) / (1 + least) * sizes + _ROUNDING)


@compiled
def _sign(shingles: Array, signatures: Array) -> None:
    """Write the signatures of a set's parts."""
    parts = len(signatures)
    for part in range(parts):
        signatures[part] = (parts * _EACH_COUNT + part + 1) * _EACH_PART
    for value in shingles:
        chosen = np.int64(((value >> _32) * np.uint64(parts)) >> _32)
        signatures[chosen] += np.uint32(value & _LOW)


@compiled
def sign_texts(
    start: int, stop: int, texts: FlatTexts, grams: Array, edges: Array, parts: Array, sizes: Array
) -> Array:
    """Write the sizes of the texts' shingle sets and return their signatures."""
    signatures = np.empty(1024, dtype=np.uint32)
    count = 0
    for text in range(start, stop):
        shingles = distinct_shingles(texts, text, grams)
        sizes[text] = len(shingles)
        more = parts[_class_of(len(shingles), edges)]
        while count + more > len(signatures):
            signatures = np.concatenate((signatures, np.empty_like(signatures)))
        _sign(shingles, signatures[count : count + more])
        count += more
    return signatures[:count].copy()


@compiled
def count_signatures(signatures: Array, spans: Array) -> None:
    """Give each bucket room for the texts of its signatures."""
    mask = len(spans) - 2
    for signature in signatures:
        spans[np.int64(signature) & mask, 0] += 1
    total = 0
    for bucket in range(len(spans)):
        size = spans[bucket, 0]
        spans[bucket, 0] = spans[bucket, 1] = total
        total += size


@compiled
def _rarities(signatures: Array, few: int, spans: Array) -> tuple[Array, int]:
    """Return a key for each part, smaller for signatures of fewer texts, and the key that `few` parts are below.

    All keys of a set differ, and two sets have their common signatures in the same order.
    """
    keys = np.empty(len(signatures), dtype=np.int64)
    for part in range(len(signatures)):
        bucket = np.int64(signatures[part]) & (len(spans) - 2)
        keys[part] = (spans[bucket + 1, 0] - spans[bucket, 0]) << ROW_BITS | part
    below = np.int64(NO_KEY)
    for _ in range(len(keys) - few):
        most = np.int64(-1)
        for key in keys:
            if most < key < below:
                most = key
        below = most
    return keys, int(below)


@compiled
def _entry(signature: np.uint32, row: int, row_bits: np.uint32) -> np.uint32:
    return np.uint32((np.int64(signature) >> np.int64(row_bits)) << np.int64(row_bits) | row)


@compiled
def store_set(row: int, sets: Sets) -> None:
    """Store a text in the buckets of its rarest signatures, one more than a similar set may lack of its own."""
    if sets.least > 1:
        return
    own = sets.signatures[sets.starts[row] : sets.starts[row + 1]]
    most = int(sets.sizes[row] / sets.least + _ROUNDING)
    keys, below = _rarities(own, _difference(sets.sizes[row] + most, sets.least) + 1, sets.spans)
    for part in range(len(own)):
        if keys[part] < below:
            bucket = np.int64(own[part]) & (len(sets.spans) - 2)
            sets.entries[sets.spans[bucket, 1]] = _entry(own[part], row, sets.row_bits)
            sets.spans[bucket, 1] += 1


@compiled
def store_sets(start: int, stop: int, sets: Sets) -> None:
    """Store texts in order."""
    for row in range(start, stop):
        store_set(row, sets)


@compiled
def _shared(own: Array, others: Array) -> int:
    """Return how many signatures are equal."""
    shared = np.int32(0)
    for part in range(np.uint64(len(own))):  # no test inside, no sign: this loop runs on vectors
        shared += np.int32(own[part] == others[part])
    return int(shared)


@compiled
def _is_new(row: int, seen: Array) -> bool:
    """Tell whether a row is seen for the first time, and keep it in a table with places to spare (0 is a free one)."""
    place = (row * _EACH_PART) & (len(seen) - 1)
    while seen[place] != 0:
        if seen[place] == row + 1:
            return False
        place = (place + 1) & (len(seen) - 1)
    seen[place] = row + 1
    return True


@compiled
def _roomier(seen: Array) -> Array:
    """Return the table with twice the places."""
    larger = np.zeros(2 * len(seen), dtype=np.int64)
    for row in seen:
        if row:
            _is_new(row - 1, larger)
    return larger


@compiled
def _candidates(own: Array, few: int, since: int, top: int, common: int, sets: Sets, rows: Array) -> int:
    """Write the stored texts from row `since` on that share `common` signatures and have at most `top` shingles.

    Returns how many they are. They are looked up by the `few` rarest signatures, and found by those of their own
    class only.
    """
    keys, below = _rarities(own, few, sets.spans)
    bits = np.int64(sets.row_bits)
    seen = np.zeros(64, dtype=np.int64)
    count = met = 0
    for part in range(len(own)):
        if keys[part] >= below:
            continue
        bucket = np.int64(own[part]) & (len(sets.spans) - 2)
        for position in range(sets.spans[bucket, 1] - 1, sets.spans[bucket, 0] - 1, -1):
            entry = np.int64(sets.entries[position])
            row = int(entry & ((1 << bits) - 1))
            if row < since:
                break
            if entry >> bits != np.int64(own[part]) >> bits or not _is_new(row, seen):
                continue
            met += 1
            if 2 * met > len(seen):
                seen = _roomier(seen)
            if sets.sizes[row] <= top:
                others = sets.signatures[sets.starts[row] : sets.starts[row] + len(own)]
                if _shared(own, others) >= common:
                    rows[count] = row
                    count += 1
    return count


@compiled
def _table_of(shingles: Array) -> tuple[Array, Array]:
    """Return distinct shingles by their hash, and the marks of the places that are taken, 1; 0 is a free place."""
    room = 2
    while room < 2 * len(shingles):
        room *= 2
    table, marks = np.empty(room, dtype=np.uint64), np.zeros(room, dtype=np.uint32)
    for value in shingles:
        place = np.int64(value & np.uint64(room - 1))
        while marks[place] != 0:
            place = (place + 1) & (room - 1)
        table[place] = value
        marks[place] = 1
    return table, marks


@compiled
def _is_similar(hashes: Array, size: int, own: int, table: Array, marks: Array, mark: int, least: float) -> bool:
    """Tell whether a set of `size` shingles, given by its text's hashes, is similar to the `own` ones in the table.

    `mark` is larger than that of the set before. It ends as soon as the hashes left are too few.
    """
    needed = int(np.ceil(least / (1 + least) * (own + size) - _ROUNDING))
    shared, left = 0, len(hashes)
    for value in hashes:
        place = np.int64(value & np.uint64(len(table) - 1))
        while marks[place] != 0 and table[place] != value:
            place = (place + 1) & (len(table) - 1)
        if marks[place] != 0 and marks[place] != mark:
            marks[place] = mark
            shared += 1
        left -= 1
        if shared + left < needed:
            return False
    return shared / (own + size - shared) >= least


@compiled
def similar_sets(shingles: Array, since: int, sets: Sets, rule: Rule, found: Array) -> int:
    """Write the stored texts from row `since` on that are similar to these shingles; return how many there are.

    The shingles are distinct. `found` has room for all that are stored. Why none is missed:
    docs/decisions/0016-similar-sets.md.
    """
    count, size = 0, len(shingles)
    if sets.least > 1 or size == 0:
        return 0
    smallest, largest = int(np.ceil(size * sets.least - _ROUNDING)), int(size / sets.least + _ROUNDING)
    data, bounds = rule.texts
    table, marks, mark = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint32), 1
    for group in range(_class_of(smallest, sets.edges), _class_of(largest, sets.edges) + 1):
        own = np.empty(sets.parts[group], dtype=np.uint32)
        _sign(shingles, own)
        top = min(largest, sets.edges[group + 1] - 1)
        differing = _difference(size + top, sets.least)
        last = count
        for row in found[
            count : count + _candidates(own, differing + 1, since, top, len(own) - differing, sets, found[count:])
        ]:
            if len(table) == 0:
                table, marks = _table_of(shingles)
            mark += 1
            hashes = feature_hashes(data, bounds[row], bounds[row + 1], rule.grams)
            if _is_similar(hashes, sets.sizes[row], size, table, marks, mark, sets.least):
                found[last] = row
                last += 1
        count = last
    return count

"""Shingle sets in lists of common signatures: which stored sets are similar to a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.codes import FIRST, Position, distance_of, nearest_of
from normloom.near_duplicates.kernels.compiled import Array, compiled
from normloom.near_duplicates.kernels.texts import FlatTexts, distinct_shingles, feature_hashes, mixed, table_of

_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_1, _6, _63 = np.uint64(1), np.uint64(6), np.uint64(63)
_EACH_COUNT, _EACH_PART = 0x10001, 0x9E3779B1  # signatures of empty parts differ by their number and count
_ROUNDING = 1e-6  # bounds of sizes are loosened by this: a division may be a little low
_SHORT_LIST, _LONG_LIST = 24, 1 << 14
_COUNTED_ALL, _MOST_COUNTED = 128, 255
_DRAW_TIMES, _DRAW_PLUS = np.uint64(6364136223846793005), np.uint64(1442695040888963407)  # Knuth's generator
_DRAW_SHIFT = np.uint64(57)
TRAITS = 4  # of a set: how many shingles it has, and a sketch of three words
_SKETCH_BITS = np.uint64(3 * 64)


class Rule(NamedTuple):
    """What confirms a candidate: texts whose shingles have a Jaccard similarity of at least `jaccard`."""

    texts: FlatTexts
    grams: Array
    jaccard: float


class Sets(NamedTuple):
    """The shingle sets of n texts in lists, to find the stored ones of a Jaccard similarity of at least `least`.

    Two similar sets are in a list together. A sketch has a bit for each remainder of the hashes, whether an odd
    number of them has it: sketches differ in no more bits than sets in shingles.
    """

    least: float
    traits: Array  # (n, 4) uint64: shingles of each text, and their sketch
    starts: Array  # (n + 1,) int64: where the lists of each text start
    lists: Array  # (m,) uint32: lists by text
    begins: Array  # (l,) int64: where the texts of each list begin
    ends: Array  # (l,) int64: where they end so far
    entries: Array  # (m,) uint32: stored texts by list, and room for the others


@compiled
def _difference(sizes: Position, least: float) -> int:
    """Return how many shingles two sets of together `sizes` may not share at a Jaccard similarity of `least`."""
    return int((1 - least) / (1 + least) * sizes + _ROUNDING)


@compiled
def describe(start: int, stop: int, texts: FlatTexts, grams: Array, traits: Array) -> None:
    """Write the sizes and sketches of the texts' shingle sets."""
    for text in range(start, stop):
        shingles = distinct_shingles(texts, text, grams)
        traits[text, 0] = len(shingles)
        for value in shingles:
            bit = ((value & _LOW) * _SKETCH_BITS) >> _32
            traits[text, 1 + np.int64(bit >> _6)] ^= _1 << (bit & _63)


@compiled
def sign_texts(rows: Array, texts: FlatTexts, grams: Array, parts: int) -> Array:
    """Deal each set into parts and return their signatures, (rows, parts) uint32: the sum of a part's hashes.

    Two sets that differ in at most d shingles have all but d of their signatures in common.
    """
    signatures = np.empty((len(rows), parts), dtype=np.uint32)
    for place in range(len(rows)):
        own = signatures[place]
        for part in range(parts):
            own[part] = (parts * _EACH_COUNT + part + 1) * _EACH_PART
        for value in distinct_shingles(texts, rows[place], grams):
            chosen = np.int64(((value >> _32) * np.uint64(parts)) >> _32)
            own[chosen] += np.uint32(value & _LOW)
    return signatures


@compiled
def count_signatures(signatures: Array, counts: Array) -> None:
    """Count signatures in a byte each; those with the same last bits share a count.

    Up to 128 every one is counted, beyond that one of 128, drawn by chance but the same ones each time (Morris 1978).
    """
    mask, drawn = len(counts) - 1, np.uint64(len(counts))
    for own in signatures:
        for signature in own:
            cell = np.int64(signature) & mask
            if counts[cell] >= _COUNTED_ALL:
                drawn = drawn * _DRAW_TIMES + _DRAW_PLUS
                if drawn >> _DRAW_SHIFT != 0 or counts[cell] == _MOST_COUNTED:
                    continue
            counts[cell] += 1


@compiled
def rarest(
    rows: Array, signatures: Array, counts: Array, traits: Array, top: int, least: float, number: int, ranges: int
) -> Array:
    """Return the signatures by which each set is looked up, `signature << 32 | row`: those of one of several ranges.

    They are the rarest of those that another set may have: so many that two similar sets, of which the smaller has
    at most `top` shingles, have one of them in common. Signatures are in the order of their counts, then their parts,
    which is the same for all sets.
    """
    parts, mask = signatures.shape[1], len(counts) - 1
    chosen = np.empty(signatures.size, dtype=np.uint64)
    met = np.empty(parts, dtype=np.int64)
    histogram = np.zeros(_MOST_COUNTED + 1, dtype=np.int64)
    total = 0
    for place in range(len(rows)):
        row, size = rows[place], np.int64(traits[rows[place], 0])
        histogram[:] = 0
        for part in range(parts):
            met[part] = counts[np.int64(signatures[place, part]) & mask]
            histogram[met[part]] += 1
        other = top if size > top else int(size / least + _ROUNDING)
        few = parts - histogram[1] - (parts - _difference(size + other, least)) + 1
        last = 2
        while few > histogram[last] and last < _MOST_COUNTED:
            few -= histogram[last]
            last += 1
        for part in range(parts):  # all below the last count, and `few` with it
            if 1 < met[part] < last or (met[part] == last and few > 0):
                few -= met[part] == last
                signature = np.uint64(signatures[place, part])
                if np.int64((signature * np.uint64(ranges)) >> _32) == number:
                    chosen[total] = signature << _32 | np.uint64(row)
                    total += 1
    return chosen[:total].copy()


@compiled
def keep_shared(common: Array) -> int:
    """Move those whose signature another one has to the front, and return how many they are.

    `common` is `signature << 32 | row`, sorted.
    """
    count, last = 0, ~np.uint64(0)  # the signature before; at first that of no row
    for place in range(len(common)):
        entry = common[place]
        following = place + 1 < len(common) and common[place + 1] >> _32 == entry >> _32
        if following or (place > 0 and entry >> _32 == last):
            common[count] = entry
            count += 1
        last = entry >> _32
    return count


@compiled
def keep_marked(common: Array, marks: Array) -> int:
    """Move those that are marked to the front, and return how many they are."""
    count = 0
    for place in range(len(common)):
        if marks[place]:
            common[count] = common[place]
            count += 1
    return count


@compiled
def list_bounds(common: Array) -> Array:
    """Return where the texts of each signature begin, and after the last ones where they end."""
    count = 0
    for place in range(len(common)):
        count += place == 0 or common[place] >> _32 != common[place - 1] >> _32
    bounds = np.empty(count + 1, dtype=np.int64)
    count = 0
    for place in range(len(common)):
        if place == 0 or common[place] >> _32 != common[place - 1] >> _32:
            bounds[count] = place
            count += 1
    bounds[count] = len(common)
    return bounds


@compiled
def keep_distinct(begins: Array, entries: Array, first: int) -> tuple[int, int]:
    """Move the lists from the `first` on that equal none of them before to the front; return how many lists there are
    now, and how many texts in them.

    Texts that share most of their shingles share most of their signatures.
    """
    room = 2
    while room < 2 * (len(begins) - first):
        room *= 2
    taken = np.zeros(room, dtype=np.int64)  # open addressing: a list's number + 1; 0 is a free place
    count, end = first, begins[first] if first < len(begins) else len(entries)
    for number in range(first, len(begins)):
        start, stop = begins[number], begins[number + 1] if number + 1 < len(begins) else len(entries)
        state = np.uint64(stop - start)
        for row in entries[start:stop]:
            state = mixed(state ^ np.uint64(row))
        place = np.int64(state & np.uint64(room - 1))
        while taken[place] != 0:
            other = taken[place]  # of those kept, the number of the next one
            if np.array_equal(
                entries[begins[other - 1] : begins[other] if other < count else end], entries[start:stop]
            ):
                break
            place = (place + 1) & (room - 1)
        if taken[place] == 0:
            begins[count] = end
            for position in range(start, stop):
                entries[end] = entries[position]
                end += 1
            count += 1
            taken[place] = count
    return count, end


@compiled
def lists_by_text(entries: Array, begins: Array, n: int) -> tuple[Array, Array]:
    """Return where the lists of each of n texts start, (n + 1,) int64, and the lists by text."""
    starts, lists = np.zeros(n + 2, dtype=np.int64), np.empty(len(entries), dtype=np.uint32)
    for row in entries:
        starts[row + 2] += 1
    for row in range(n):
        starts[row + 2] += starts[row + 1]
    for number in range(len(begins)):
        stop = begins[number + 1] if number + 1 < len(begins) else len(entries)
        for row in entries[begins[number] : stop]:
            lists[starts[row + 1]] = number
            starts[row + 1] += 1
    return starts[: n + 1], lists


@compiled
def store_set(row: int, sets: Sets) -> None:
    """Store a text in its lists."""
    if sets.least > 1:
        return
    for place in range(sets.starts[row], sets.starts[row + 1]):
        number = sets.lists[place]
        sets.entries[sets.ends[number]] = row
        sets.ends[number] += 1


@compiled
def store_sets(start: int, stop: int, sets: Sets) -> None:
    """Store texts in order."""
    for row in range(start, stop):
        store_set(row, sets)


@compiled
def _is_new(row: Position, seen: Array) -> bool:
    """Return whether a row is seen for the first time, and add it to a table with free slots (0 is free)."""
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
def _may_be_similar(own: Array, other: Array, least: float) -> bool:
    """Tell by two sets' traits whether they may be similar."""
    one, two = np.int64(own[0]), np.int64(other[0])
    if min(one, two) < least * max(one, two) - _ROUNDING:
        return False
    apart = distance_of(own[1] ^ other[1]) + distance_of(own[2] ^ other[2]) + distance_of(own[3] ^ other[3])
    return bool(np.int64(apart) <= _difference(one + two, least))


@compiled
def find_partners(
    start: int, stop: int, common: Array, begins: Array, traits: Array, least: float, partners: Array
) -> None:
    """Mark each text of the lists start to stop of which another in its list may be similar.

    `common` has texts in its low 32 bits, those of list k from `begins[k]` to `begins[k + 1]`. Sketches are folded to
    64 bits first, compared one with all. Very long lists are not looked through.
    """
    room = 0
    for number in range(start, stop):
        room = max(room, begins[number + 1] - begins[number])
    kept_folds, kept_traits = np.empty(room, dtype=np.uint64), np.empty((room, TRAITS), dtype=np.uint64)
    for number in range(start, stop):
        begin, end = begins[number], begins[number + 1]
        own, rows, folds = partners[begin:end], common[begin:end], kept_folds[: end - begin]
        if len(own) > _LONG_LIST:
            own[:] = True
            continue
        for place in range(len(rows)):
            kept_traits[place] = traits[np.int64(rows[place] & _LOW)]  # contiguous: each is compared many times
            folds[place] = kept_traits[place, 1] ^ kept_traits[place, 2] ^ kept_traits[place, 3]
        for place in range(len(rows)):
            if own[place]:
                continue
            size = np.int64(kept_traits[place, 0])
            most = np.uint64(_difference(size + int(size / least + _ROUNDING), least))
            if len(rows) > _SHORT_LIST and most < min(
                nearest_of(folds[place], folds, FIRST, place), nearest_of(folds[place], folds, place + 1, len(rows))
            ):
                continue
            for other in range(len(rows)):
                if (
                    distance_of(folds[place] ^ folds[other]) <= most
                    and other != place
                    and _may_be_similar(kept_traits[place], kept_traits[other], least)
                ):
                    own[place] = own[other] = True
                    break


@compiled
def _candidates(row: int, since: Position, sets: Sets, rows: Array) -> int:
    """Write the stored texts from row `since` on that may be similar, and return how many they are."""
    seen = np.empty(0, dtype=np.int64)
    count = 0
    for list_place in range(sets.starts[row], sets.starts[row + 1]):
        number = sets.lists[list_place]
        for position in range(sets.ends[number] - 1, sets.begins[number] - 1, -1):
            other = np.int64(sets.entries[position])
            if other < since:
                break
            if not _may_be_similar(sets.traits[row], sets.traits[other], sets.least):
                continue
            if len(seen) == 0:
                seen = np.zeros(64, dtype=np.int64)
            if _is_new(other, seen):
                rows[count] = other
                count += 1
                if 2 * count > len(seen):
                    seen = _roomier(seen)
    return count


@compiled
def _is_similar(
    hashes: Array, size: Position, own: Position, table: Array, marks: Array, mark: int, least: float
) -> bool:
    """Return whether a set of `size` shingles, given by its text's hashes, is similar to the `own` ones in the table.

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
def similar_sets(row: int, since: Position, sets: Sets, rule: Rule, found: Array) -> int:
    """Write the stored texts from row `since` on that are similar to this one; return how many there are.

    `found` has room for all that are stored. Why none is missed: docs/decisions/0016-similar-sets.md.
    """
    if sets.least > 1:
        return 0
    candidates = _candidates(row, since, sets, found)
    if candidates == 0:
        return 0
    data, bounds = rule.texts
    size = np.int64(sets.traits[row, 0])
    table, marks = table_of(distinct_shingles(rule.texts, row, rule.grams))
    count = 0
    for place in range(candidates):
        other = found[place]
        hashes = feature_hashes(data, bounds[other], bounds[other + 1], rule.grams)
        if _is_similar(hashes, np.int64(sets.traits[other, 0]), size, table, marks, place + 2, sets.least):
            found[count] = other
            count += 1
    return count

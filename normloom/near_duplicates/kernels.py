"""What numba compiles for near-duplicates: shingles and their codes, codes in buckets, similar sets, removal, clusters.

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
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_EACH_COUNT, _EACH_PART = 0x10001, 0x9E3779B1  # signatures of empty parts differ by their number and count
_ROUNDING = 1e-6  # bounds of sizes are loosened by this: a division may be a little low
_CONTINUATION, _CONTINUATION_MASK, _SPACE = 0x80, 0xC0, 0x20


class FlatTexts(NamedTuple):
    """Normalised texts as UTF-8: text i is `data[bounds[i]:bounds[i + 1]]` (uint8, int64)."""

    data: Array
    bounds: Array


class Rule(NamedTuple):
    """What confirms a candidate: texts whose shingles have a Jaccard similarity of at least `jaccard`."""

    texts: FlatTexts
    grams: Array
    jaccard: float


class SearchPlan(NamedTuple):
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
def _distinct(texts: FlatTexts, text: int, grams: Array) -> Array:
    """Return what `shingle_set` does in no order: sorting takes four times as long."""
    hashes = _feature_hashes(texts.data, texts.bounds[text], texts.bounds[text + 1], grams)
    room = 2
    while room < 2 * len(hashes):
        room *= 2
    taken = np.zeros(room, dtype=np.uint64)  # open addressing; 0 is a free place
    count, has_zero = 0, False
    for value in hashes:
        if value == 0:
            if has_zero:
                continue
            has_zero = True
        else:
            place = np.int64(value & np.uint64(room - 1))
            while taken[place] != 0 and taken[place] != value:
                place = (place + 1) & (room - 1)
            if taken[place] == value:
                continue
            taken[place] = value
        hashes[count] = value
        count += 1
    return hashes[:count]


@_compiled
def overlap(left: Array, right: Array) -> float:
    """Return the Jaccard similarity of two ascending arrays of distinct values; 1 if both are empty."""
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


@_compiled
def neighbours(code: np.uint64, index: Index, plan: SearchPlan, found: Array) -> Array:
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
def mark_near(codes: Array, index: Index, plan: SearchPlan, near: Array) -> None:
    """Set `near` at the stored rows that are nearer than tau to one of the codes."""
    found = np.empty(index.size[0], dtype=np.int64)
    for code in codes:
        for key in neighbours(code, index, plan, found):
            near[key & ROW_MASK] = True


@_compiled
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
def _class_of(size: int, edges: Array) -> int:
    return int(np.searchsorted(edges, size, side="right")) - 1


@_compiled
def _difference(sizes: int, least: float) -> int:
    """Return how many shingles two sets of together `sizes` may not share at a Jaccard similarity of `least`."""
    return int((1 - least) / (1 + least) * sizes + _ROUNDING)


@_compiled
def _sign(shingles: Array, signatures: Array) -> None:
    """Write the signatures of a set's parts."""
    parts = len(signatures)
    for part in range(parts):
        signatures[part] = (parts * _EACH_COUNT + part + 1) * _EACH_PART
    for value in shingles:
        chosen = np.int64(((value >> _32) * np.uint64(parts)) >> _32)
        signatures[chosen] += np.uint32(value & _LOW)


@_compiled
def sign_texts(
    start: int, stop: int, texts: FlatTexts, grams: Array, edges: Array, parts: Array, sizes: Array
) -> Array:
    """Write the sizes of the texts' shingle sets and return their signatures."""
    signatures = np.empty(1024, dtype=np.uint32)
    count = 0
    for text in range(start, stop):
        shingles = _distinct(texts, text, grams)
        sizes[text] = len(shingles)
        more = parts[_class_of(len(shingles), edges)]
        while count + more > len(signatures):
            signatures = np.concatenate((signatures, np.empty_like(signatures)))
        _sign(shingles, signatures[count : count + more])
        count += more
    return signatures[:count].copy()


@_compiled
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


@_compiled
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


@_compiled
def _entry(signature: np.uint32, row: int, row_bits: np.uint32) -> np.uint32:
    return np.uint32((np.int64(signature) >> np.int64(row_bits)) << np.int64(row_bits) | row)


@_compiled
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


@_compiled
def store_sets(start: int, stop: int, sets: Sets) -> None:
    """Store texts in order."""
    for row in range(start, stop):
        store_set(row, sets)


@_compiled
def _shared(own: Array, others: Array) -> int:
    """Return how many signatures are equal."""
    shared = np.int32(0)
    for part in range(np.uint64(len(own))):  # no test inside, no sign: this loop runs on vectors
        shared += np.int32(own[part] == others[part])
    return int(shared)


@_compiled
def _leads_to(row: int, part: int, own: Array, keys: Array, common: int, sets: Sets) -> bool:
    """Tell whether a stored text shares `common` signatures and this part's is the first that leads there."""
    others = sets.signatures[sets.starts[row] : sets.starts[row] + len(own)]
    if own[part] != others[part] or _shared(own, others) < common:
        return False
    for other in range(len(own)):  # noqa: SIM110  # numba compiles no generator
        if own[other] == others[other] and keys[other] < keys[part]:
            return False
    return True


@_compiled
def _search_part(  # noqa: PLR0913, PLR0917  # compiled: nothing is given by keyword
    part: int, shingles: Array, own: Array, keys: Array, group: int, since: int, sets: Sets, rule: Rule, found: Array
) -> int:
    """Do what `similar_sets` does by one signature, for the texts of one class of sizes."""
    count, size = 0, len(shingles)
    bottom, top = sets.edges[group], min(int(size / sets.least + _ROUNDING), sets.edges[group + 1] - 1)
    common = len(own) - _difference(size + top, sets.least)
    bucket = np.int64(own[part]) & (len(sets.spans) - 2)
    bits = np.int64(sets.row_bits)
    for place in range(sets.spans[bucket, 1] - 1, sets.spans[bucket, 0] - 1, -1):
        entry = np.int64(sets.entries[place])
        row = int(entry & ((1 << bits) - 1))
        if row < since:
            break
        if entry >> bits != np.int64(own[part]) >> bits or not _leads_to(row, part, own, keys, common, sets):
            continue
        if bottom <= sets.sizes[row] <= top:
            other = shingle_set(rule.texts.data, rule.texts.bounds, row, rule.grams)
            if overlap(np.sort(shingles), other) >= sets.least:
                found[count] = row
                count += 1
    return count


@_compiled
def similar_sets(shingles: Array, since: int, sets: Sets, rule: Rule, found: Array) -> int:
    """Write the stored texts from row `since` on that are similar to these shingles; return how many there are.

    `found` has room for all that are stored. Why none is missed: docs/decisions/0016-similar-sets.md.
    """
    count, size = 0, len(shingles)
    if sets.least > 1 or size == 0:
        return 0
    smallest, largest = int(np.ceil(size * sets.least - _ROUNDING)), int(size / sets.least + _ROUNDING)
    for group in range(_class_of(smallest, sets.edges), _class_of(largest, sets.edges) + 1):
        own = np.empty(sets.parts[group], dtype=np.uint32)
        _sign(shingles, own)
        differing = _difference(size + min(largest, sets.edges[group + 1] - 1), sets.least)
        keys, below = _rarities(own, differing + 1, sets.spans)
        for part in range(len(own)):
            if keys[part] < below:
                count += _search_part(part, shingles, own, keys, group, since, sets, rule, found[count:])
    return count


@_compiled
def _nearest_similar(row: int, since: int, codes: Array, sets: Sets, rule: Rule, found: Array) -> int:
    """Return the least key of the similar sets stored from row `since` on, or `NO_KEY`."""
    if sets.least > 1:
        return NO_KEY
    shingles = _distinct(rule.texts, row, rule.grams)
    nearest = NO_KEY
    for other in found[: similar_sets(shingles, since, sets, rule, found)]:
        nearest = min(nearest, np.int64(distance_of(codes[row] ^ codes[other])) << ROW_BITS | other)
    return nearest


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
def look_up_rows(
    start: int, stop: int, codes: Array, index: Index, plan: SearchPlan, sets: Sets, rule: Rule, keys: Array
) -> None:
    """Write the key of each row's keeper among the stored rows: the nearest within tau, else of the similar sets."""
    found = np.empty(index.size[0], dtype=np.int64)
    for row in range(start, stop):
        keys[row] = _first_similar(neighbours(codes[row], index, plan, found), row, rule)
        if keys[row] == NO_KEY:
            keys[row] = _nearest_similar(row, 0, codes, sets, rule, found)


@_compiled
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
            for place in range(first, index.size[0]):
                distance = distance_of(codes[row] ^ index.codes[place])
                if distance < below:
                    found[count] = np.int64(distance) << ROW_BITS | np.int64(index.rows[place])
                    count += 1
            keys[row] = min(keys[row], _first_similar(np.sort(found[:count]), row, rule))
        if np.uint64(keys[row] >> ROW_BITS) >= plan.tau:
            keys[row] = min(keys[row], _nearest_similar(row, start, codes, sets, rule, found))
        if keys[row] == NO_KEY:
            store(codes[row], row, index)
            store_set(row, sets)


@_compiled
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
            shingles = _distinct(rule.texts, row, rule.grams)
            for other in found[: similar_sets(shingles, 0, sets, rule, found)]:
                mark |= every & ~marks[other]
        marks[row] = mark
        if mark != every:
            store_set(row, sets)


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

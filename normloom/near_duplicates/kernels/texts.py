"""Texts as feature hashes: shingle sets, their Jaccard similarity, SimHash codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from normloom.near_duplicates.kernels.codes import Position
from normloom.near_duplicates.kernels.compiled import Array, compiled

_1, _64 = np.uint64(1), np.uint64(64)
_PLANES = 48  # bits of a count of hashes
_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finaliser: FNV-1a alone spreads short runs badly
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_MIX_SHIFT = np.uint64(33)
_CONTINUATION, _CONTINUATION_MASK, _SPACE = 0x80, 0xC0, 0x20
_FOLDED = np.array(
    [ord(" " if chr(b).isspace() else chr(b).lower()) if chr(b).isascii() else b for b in range(256)], np.uint8
)


class FlatTexts(NamedTuple):
    """Normalised texts as UTF-8: text i is `data[bounds[i]:bounds[i + 1]]` (uint8, int64)."""

    data: Array
    bounds: Array


@compiled
def fold(data: Array, bounds: Array) -> tuple[Array, Array]:
    """Normalise texts laid end to end; return them so, and their sizes.

    Those with characters beyond ASCII must be in normal form: nothing changes in them.
    """
    folded, sizes = np.empty(bounds[-1] - bounds[0], dtype=np.uint8), np.empty(len(bounds) - 1, dtype=np.int64)
    count = 0
    for text in range(len(sizes)):
        start, after_space = count, np.int64(1)
        for position in range(bounds[text], bounds[text + 1]):  # no branch inside: it would be guessed wrong
            byte = _FOLDED[data[position]]
            folded[count] = byte
            space = np.int64(byte == _SPACE)
            count += int(1 - (space & after_space))
            after_space = space
        if count > start:
            count -= int(after_space)
        sizes[text] = count - start
    return folded[:count].copy(), sizes


@compiled
def _first_state(kind: int) -> np.uint64:
    return (_FNV_BASIS ^ np.uint64(kind)) * _FNV_PRIME


@compiled
def mixed(state: np.uint64) -> np.uint64:
    """Return the state with all bits of each byte spread over the whole."""
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_1
    state = (state ^ (state >> _MIX_SHIFT)) * _MIX_2
    return state ^ (state >> _MIX_SHIFT)


@compiled
def _hash(data: Array, start: int, stop: int, kind: int) -> np.uint64:
    state = _first_state(kind)
    for position in range(start, stop):
        state = (state ^ np.uint64(data[position])) * _FNV_PRIME
    return mixed(state)


@compiled
def _hash_runs(data: Array, width: int, kind: int, hashes: Array) -> int:
    """Write the hash of each run of `width` bytes; return how many there are."""
    count = len(data) - width + 1
    states = hashes[:count]
    states[:] = _first_state(kind)
    for offset in range(width):  # all runs side by side: these loops run on vectors
        run = data[offset : offset + count]
        for first in range(count):
            states[first] = (states[first] ^ np.uint64(run[first])) * _FNV_PRIME
    for first in range(count):
        states[first] = mixed(states[first])
    return count


@compiled
def _is_ascii(data: Array) -> bool:
    every = np.uint8(0)
    for byte in data:
        every |= byte
    return bool(every < 0x80)  # noqa: PLR2004


@compiled
def _edges(data: Array, start: int, stop: int, gap: int) -> Array:
    """Return where each character (gap 0) or word (gap 1) starts, and after the last `stop + gap`."""
    edges = np.empty(stop - start + 1, dtype=np.int64)
    count = 0
    for position in range(start, stop):
        if gap:
            begins = position == start or data[position - 1] == _SPACE
        else:
            begins = data[position] & _CONTINUATION_MASK != _CONTINUATION
        if begins:
            edges[count] = position
            count += 1
    edges[count] = stop + gap
    return edges[: count + 1]


@compiled
def feature_hashes(data: Array, start: int, stop: int, grams: Array) -> Array:
    """Return the hash of each feature of a text, as often as it occurs."""
    hashes = np.empty((stop - start) * len(grams), dtype=np.uint64)
    count = 0
    if start == stop:
        return hashes
    ascii_only = _is_ascii(data[start:stop])
    for gap, size in grams:
        if ascii_only and gap == 0:
            count += _hash_runs(data[start:stop], min(size, stop - start), 2 * size, hashes[count:])
            continue
        edges = _edges(data, start, stop, gap)
        units = len(edges) - 1
        width = min(size, units)
        for first in range(units - width + 1):
            hashes[count] = _hash(data, edges[first], edges[first + width] - gap, 2 * size + gap)
            count += 1
    return hashes[:count]


@compiled
def shingle_set(data: Array, bounds: Array, text: int, grams: Array) -> Array:
    """Return the distinct feature hashes of one packed text, ascending."""
    hashes = np.sort(feature_hashes(data, bounds[text], bounds[text + 1], grams))
    count = 0
    for value in hashes:
        if count == 0 or value != hashes[count - 1]:
            hashes[count] = value
            count += 1
    return hashes[:count]


@compiled
def distinct_shingles(texts: FlatTexts, text: Position, grams: Array) -> Array:
    """Return what `shingle_set` does in no order: sorting takes four times as long."""
    hashes = feature_hashes(texts.data, texts.bounds[text], texts.bounds[text + 1], grams)
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
            position = np.int64(value & np.uint64(room - 1))
            while taken[position] != 0 and taken[position] != value:
                position = (position + 1) & (room - 1)
            if taken[position] == value:
                continue
            taken[position] = value
        hashes[count] = value
        count += 1
    return hashes[:count]


@compiled
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


@compiled
def table_of(shingles: Array) -> tuple[Array, Array]:
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
def similarity_to(table: Array, marks: Array, size: int, others: Array) -> float:
    """Return the Jaccard similarity of distinct shingles to the `size` ones in a table; 1 if there are none."""
    shared = 0
    for value in others:
        place = np.int64(value & np.uint64(len(table) - 1))
        while marks[place] != 0 and table[place] != value:
            place = (place + 1) & (len(table) - 1)
        if marks[place] != 0:
            shared += 1
    union = size + len(others) - shared
    return shared / union if union else 1.0


@compiled
def similarities(texts: FlatTexts, left: Array, right: Array, grams: Array) -> Array:
    """Return the Jaccard similarities of the text pairs (left[k], right[k])."""
    similarity = np.empty(len(left), dtype=np.float64)
    table, marks = table_of(np.empty(0, dtype=np.uint64))
    size = 0
    other = np.empty(0, dtype=np.uint64)
    for k in range(len(left)):  # pairs often come with one of their rows in common
        if k == 0 or left[k] != left[k - 1]:
            own = distinct_shingles(texts, left[k], grams)
            table, marks = table_of(own)
            size = len(own)
        if k == 0 or right[k] != right[k - 1]:
            other = distinct_shingles(texts, right[k], grams)
        similarity[k] = similarity_to(table, marks, size, other)
    return similarity


@compiled
def _decides(hashes: Array, bit: np.uint64) -> np.uint64:
    """Return the bit of the feature whose hash is smallest when rotated by the bit: another one for each bit."""
    return (hashes >> bit | hashes << (_64 - bit) % _64).min() & _1  # type: ignore[no-any-return]  # numba knows it


@compiled
def _add(value: np.uint64, planes: Array, plane: int) -> None:
    """Add 64 bits to 64 counters, of which plane k holds the bits worth 2**k."""
    while value:
        carry = planes[plane] & value
        planes[plane] ^= value
        value = carry
        plane += 1


@compiled
def _majorities(hashes: Array) -> tuple[np.uint64, np.uint64]:
    """Return the bits that more than half of the hashes have, and those that just half of them have."""
    planes = np.zeros(_PLANES, dtype=np.uint64)
    ones, twos = np.uint64(0), np.uint64(0)
    whole = len(hashes) - len(hashes) % 4
    for place in range(0, whole, 4):  # four at once: they carry into the fours together
        a, b, c, d = hashes[place], hashes[place + 1], hashes[place + 2], hashes[place + 3]
        first = (a & b) | (ones & (a ^ b))
        ones ^= a ^ b
        second = (c & d) | (ones & (c ^ d))
        ones ^= c ^ d
        _add((first & second) | (twos & (first ^ second)), planes, 2)
        twos ^= first ^ second
    planes[0], planes[1] = ones, twos
    for value in hashes[whole:]:
        _add(value, planes, 0)
    half = len(hashes) // 2
    more, same = np.uint64(0), ~np.uint64(0)
    for plane in range(_PLANES - 1, -1, -1):
        if half >> plane & 1:
            same &= planes[plane]
        else:
            more |= same & planes[plane]
            same &= ~planes[plane]
    return more, same if len(hashes) % 2 == 0 else np.uint64(0)


@compiled
def simhashes(data: Array, bounds: Array, grams: Array, binary: bool) -> Array:  # noqa: FBT001  # numba takes no keywords only
    """Return the SimHash code of each text, (n,) uint64."""
    codes = np.zeros(len(bounds) - 1, dtype=np.uint64)
    for text in range(len(codes)):
        if binary:
            hashes = shingle_set(data, bounds, text, grams)
        else:
            hashes = feature_hashes(data, bounds[text], bounds[text + 1], grams)
        if len(hashes) == 0:
            continue
        codes[text], ties = _majorities(hashes)
        for bit in range(64 if ties else 0):
            position = np.uint64(bit)
            if ties >> position & _1 and _decides(hashes, position):
                codes[text] |= _1 << position
    return codes

"""Exact search for stored shingle sets of a Jaccard similarity of at least a threshold.

A prefix filter (Chaudhuri, Ganti and Kaushik 2006) over the signatures of parts (Arasu, Ganti and Kaushik 2006),
rarest first: docs/decisions/0016-similar-sets.md. Nothing is missed, and every similarity is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.arrays import extend, give_back
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.sets import (
    TRAITS,
    Sets,
    count_signatures,
    describe,
    find_partners,
    keep_distinct,
    keep_marked,
    keep_shared,
    list_bounds,
    lists_by_text,
    rarest,
    sign_texts,
)
from normloom.near_duplicates.kernels.texts import FlatTexts

if TYPE_CHECKING:
    from normloom.near_duplicates.sharing import Share

_RATIO = 1.5  # of the sizes in a class: fewer classes are looked up faster, finer ones find fewer candidates
_SPARE = 10  # beyond what a similar set may lack, one part in ten: its commonest parts are never looked up
_SIGNED = 1 << 22  # signatures made at once, 4 bytes each
_HELD = 1 << 24  # those of a class are held if they are no more; else they are made again
_RANGE = 1 << 26  # signatures of a class that are gathered at once, about half of them and 8 bytes each
_CELLS = 1 << 27  # bytes of counts at most; with fewer than two a signature, more of them seem to be common
_ROUNDING = 1e-6

NO_SETS = Sets(
    2.0,
    np.zeros((0, TRAITS), dtype=np.uint64),
    np.zeros(1, dtype=np.int64),
    np.zeros(0, dtype=np.uint32),
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=np.uint32),
)


def empty_sets(texts: FlatTexts, grams: Array, least: float, share: Share) -> Sets:
    """Return the sets of these texts, none of them stored.

    Takes 40 bytes a text, 8 for each list that it is in and 16 a list; for a while also 128 MB at most of counts, and
    the lists of one range of signatures.
    """
    n = len(texts.bounds) - 1
    traits = np.zeros((n, TRAITS), dtype=np.uint64)
    share(lambda start, stop: describe(start, stop, texts, grams, traits), 0, n)
    sizes = traits[:, 0].astype(np.uint32)
    order = np.argsort(sizes, kind="stable").astype(np.uint32)
    entries, begins = np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
    for lowest, top, parts in _classes(int(sizes.max(initial=0)), least):
        edges = np.array([lowest, top + 1, int(top / least + _ROUNDING) + 1], dtype=np.uint32)
        first, own, last = np.searchsorted(sizes, edges, sorter=order)
        if first == own or last - first < 2:  # noqa: PLR2004  # a pair
            continue
        signed = _Signed(np.sort(order[first:last]), texts, grams, parts, share)
        before = len(begins)
        for common in _listed(signed, traits, top, least, share):
            extend(begins, [len(entries) + list_bounds(common)[:-1]])
            extend(entries, [common])  # of which the low 32 bits, the rows
            del common
            give_back()
        lists, placed = keep_distinct(begins, entries, before)
        begins.resize(lists, refcheck=False)
        entries.resize(placed, refcheck=False)
    del sizes, order
    sets = Sets(least, traits, *lists_by_text(entries, begins, n), begins, begins.copy(), entries)
    give_back()
    return sets


class _Signed:
    """The signatures of some texts' sets, made piece by piece, and again unless they are few."""

    def __init__(self, rows: Array, texts: FlatTexts, grams: Array, parts: int, share: Share) -> None:
        self.signatures = len(rows) * parts
        self._made = lambda start, stop: (rows[start:stop], sign_texts(rows[start:stop], texts, grams, parts))
        self._rows, self._share = len(rows), share
        self._step = max(_SIGNED // parts, 1)
        self._held: list[list[tuple[Array, Array]]] = []

    def __iter__(self) -> Iterator[list[tuple[Array, Array]]]:
        if self._held:
            yield from self._held
            return
        for start in range(0, self._rows, self._step):
            made = self._share(self._made, start, min(start + self._step, self._rows))
            if self.signatures <= _HELD:
                self._held.append(made)
            yield made


def _listed(signed: _Signed, traits: Array, top: int, least: float, share: Share) -> Iterator[Array]:
    """Yield `signature << 32 | row`, sorted, one range of signatures after another: by what texts are looked up.

    Without the texts that may be similar to no other of the same signature.
    """
    counts = np.zeros(min(2 << signed.signatures.bit_length(), _CELLS), dtype=np.uint8)
    for made in signed:
        for _, signatures in made:
            count_signatures(signatures, counts)
    ranges = -(-signed.signatures // _RANGE)
    for number in range(ranges):
        choose = partial(rarest, counts=counts, traits=traits, top=top, least=least, number=number, ranges=ranges)
        yield _paired(_common(signed, choose, share), traits, least, share)


def _common(signed: _Signed, choose: Callable[[Array, Array], Array], share: Share) -> npt.NDArray[np.uint64]:
    """Return `signature << 32 | row`, sorted, of the signatures that are chosen and that several texts have."""
    common = np.zeros(0, dtype=np.uint64)
    for made in signed:
        extend(common, share(partial(_chosen, choose, made), 0, len(made)))
    common.sort()
    common.resize(keep_shared(common), refcheck=False)  # in place: it is the largest array of all
    return common


def _paired(common: Array, traits: Array, least: float, share: Share) -> Array:
    """Return what is common, in place, without the texts that may be similar to no other of the same signature."""
    begins = list_bounds(common)
    partners = np.zeros(len(common), dtype=np.bool_)
    mark = partial(find_partners, common=common, begins=begins, traits=traits, least=least, partners=partners)
    share(mark, 0, len(begins) - 1)
    common.resize(keep_marked(common, partners), refcheck=False)
    return common


def _chosen(choose: Callable[[Array, Array], Array], made: list[tuple[Array, Array]], start: int, stop: int) -> Array:
    return np.concatenate([choose(rows, signatures) for rows, signatures in made[start:stop]])


def _classes(most: int, least: float) -> Iterator[tuple[int, int, int]]:
    """Yield for each class of sizes up to `most` its least size, its largest and its number of parts.

    The smaller of two similar sets belongs to a class; the larger has at most 1 / least as many shingles as its
    largest. A set of s shingles differs from a similar one of at most s / least in at most s / least - s.
    """
    edges = [1]
    while edges[-1] <= most:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _RATIO)))
    for start, stop in pairwise(edges):
        differing = int((1 / least - 1) * (stop - 1) + _ROUNDING)
        yield start, stop - 1, differing + 1 + -(-differing // _SPARE)

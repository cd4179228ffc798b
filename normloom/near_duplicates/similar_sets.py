"""Exact search for stored shingle sets of a Jaccard similarity of at least a threshold.

A prefix filter (Chaudhuri, Ganti and Kaushik 2006) over the signatures of parts (Arasu, Ganti and Kaushik 2006),
rarest first: docs/decisions/0016-similar-sets.md. Nothing is missed, and every similarity is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.arrays import extend
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.sets import (
    TRAITS,
    Sets,
    count_signatures,
    describe,
    find_partners,
    keep_shared,
    list_bounds,
    number_lists,
    rarest,
    sign_texts,
)
from normloom.near_duplicates.kernels.texts import FlatTexts

if TYPE_CHECKING:
    from normloom.near_duplicates.sharing import Share

_RATIO = 1.5  # of the sizes in a class: fewer classes are looked up faster, finer ones find fewer candidates
_SPARE = 10  # beyond what a similar set may lack, one part in ten: its commonest parts are never looked up
_SIGNED = 1 << 24  # signatures held at once, 4 bytes each; beyond that they are made twice
_CELLS = 1 << 27  # bytes of counts at most; with fewer than two a signature, more of them seem to be common
_ROUNDING = 1e-6
_ROW_BITS = np.uint64(32)
_NONE = np.zeros(0, dtype=np.bool_)

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

    Takes 32 bytes a text and 8 for each list that it is in; for a while also 128 MB at most of counts, and the lists of
    one class of sizes.
    """
    n = len(texts.bounds) - 1
    traits = np.zeros((n, TRAITS), dtype=np.uint64)
    share(lambda start, stop: describe(start, stop, texts, grams, traits), 0, n)
    sizes = traits[:, 0].astype(np.uint32)
    order = np.argsort(sizes, kind="stable").astype(np.uint32)
    ordered = sizes[order]
    listed, begin = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    for lowest, top, parts in _classes(int(sizes.max(initial=0)), least):
        first, own, last = np.searchsorted(ordered, [lowest, top + 1, int(top / least + _ROUNDING) + 1])
        if first == own or last - first < 2:  # noqa: PLR2004  # a pair
            continue
        signed = _Signed(np.sort(order[first:last]), texts, grams, parts, share)
        common = _listed(signed, traits, top, least, share)
        bounds = list_bounds(common)
        number_lists(common, bounds, len(begin))
        extend(begin, [len(listed) + bounds[:-1]])
        extend(listed, [common])
        del common
    listed.sort()  # by text
    starts = np.searchsorted(listed, np.arange(n + 1, dtype=np.uint64) << _ROW_BITS)
    lists = listed.astype(np.uint32)
    return Sets(least, traits, starts, lists, begin, begin.copy(), np.empty(len(lists), dtype=np.uint32))


class _Signed:
    """The signatures of some texts' sets, made piece by piece, and again unless they are few."""

    def __init__(self, rows: Array, texts: FlatTexts, grams: Array, parts: int, share: Share) -> None:
        self.signatures = len(rows) * parts
        self._made = lambda start, stop: (rows[start:stop], sign_texts(rows[start:stop], texts, grams, parts))
        self._rows, self._share = len(rows), share
        self._step = max(_SIGNED // parts, 1)
        self._held: list[tuple[Array, Array]] = []

    def __iter__(self) -> Iterator[list[tuple[Array, Array]]]:
        if self._held:
            yield self._held
            return
        for start in range(0, self._rows, self._step):
            made = self._share(self._made, start, min(start + self._step, self._rows))
            if self._rows <= self._step:
                self._held = made
            yield made


def _listed(signed: _Signed, traits: Array, top: int, least: float, share: Share) -> npt.NDArray[np.uint64]:
    """Return what `_common` does, without the texts that may be similar to no other of their list."""
    common = _common(signed, traits, top, least, share)
    begins = list_bounds(common)
    partners = partial(find_partners, common=common, begins=begins, traits=traits, least=least)
    found: npt.NDArray[np.uint64] = common[np.concatenate([_NONE, *share(partners, 0, len(begins) - 1)])]
    return found


def _common(signed: _Signed, traits: Array, top: int, least: float, share: Share) -> npt.NDArray[np.uint64]:
    """Return `signature << 32 | row`, sorted: by what texts are looked up, if several are by the same."""
    counts = np.zeros(min(2 << signed.signatures.bit_length(), _CELLS), dtype=np.uint8)
    for made in signed:
        for _, signatures in made:
            count_signatures(signatures, counts)
    found = np.zeros(0, dtype=np.uint64)
    for made in signed:
        choose = partial(_chosen, made, counts, traits, top, least)
        extend(found, share(choose, 0, len(made)))
    found.sort()
    found.resize(keep_shared(found), refcheck=False)  # in place: it is the largest array of all
    return found


def _chosen(
    made: list[tuple[Array, Array]], counts: Array, traits: Array, top: int, least: float, start: int, stop: int
) -> Array:
    pieces = [rarest(rows, signatures, counts, traits, top, least) for rows, signatures in made[start:stop]]
    return np.concatenate(pieces)


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

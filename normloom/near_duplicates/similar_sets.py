"""Exact search for stored shingle sets of a Jaccard similarity of at least a threshold.

A prefix filter (Chaudhuri, Ganti and Kaushik 2006) over the signatures of parts (Arasu, Ganti and Kaushik 2006),
rarest first: docs/decisions/0016-similar-sets.md. Nothing is missed, and every similarity is computed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.sets import Sets, count_signatures, sign_texts
from normloom.near_duplicates.kernels.texts import FlatTexts

if TYPE_CHECKING:
    from normloom.near_duplicates.find import Share

_RATIO = 1.5  # of the sizes in a class: fewer classes are looked up faster, finer ones find fewer candidates
_SPARE = 10  # beyond what a similar set may lack, one part in ten: its commonest parts are never looked up
_PER_BUCKET = 4  # signatures of a bucket on average

NO_SETS = Sets(
    2.0,
    np.zeros(2, dtype=np.int64),
    np.zeros(1, dtype=np.int64),
    np.zeros(0, dtype=np.int64),
    np.zeros(1, dtype=np.int64),
    np.zeros(0, dtype=np.uint32),
    np.zeros((3, 2), dtype=np.int64),
    np.zeros(0, dtype=np.uint32),
    np.uint32(1),
)


def empty_sets(texts: FlatTexts, grams: Array, least: float, share: Share) -> Sets:
    """Return the sets of these texts, none of them stored. Takes about 8 bytes for every third shingle."""
    n = len(texts.bounds) - 1
    edges, parts = _classes(int(np.diff(texts.bounds).max(initial=1)) * len(grams), least)
    sizes = np.zeros(n, dtype=np.int64)
    made = share(lambda start, stop: sign_texts(start, stop, texts, grams, edges, parts, sizes), 0, n)
    signatures = np.concatenate([*made, np.zeros(parts.max(), dtype=np.uint32)])
    starts = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(parts[np.searchsorted(edges, sizes, side="right") - 1], out=starts[1:])
    spans = np.zeros((max(2, 1 << (len(signatures) // _PER_BUCKET).bit_length()) + 1, 2), dtype=np.int64)
    count_signatures(signatures, spans)
    return Sets(
        least, edges, parts, sizes, starts, signatures, spans, np.empty_like(signatures), np.uint32(n.bit_length())
    )


def _classes(most: int, least: float) -> tuple[Array, Array]:
    """Return where the classes of sizes up to `most` / `least` start, and their numbers of parts.

    A set of s shingles is similar to sets of at most s / least, from which it differs in at most s / least - s.
    """
    edges = [0, 1]
    while edges[-1] <= most / least + 1:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _RATIO)))
    differing = [int((1 / least - 1) * (stop - 1) + 1e-6) for _, stop in pairwise(edges)]
    parts = [count + 1 + -(-count // _SPARE) for count in differing]
    return np.array(edges, dtype=np.int64), np.array(parts, dtype=np.int64)

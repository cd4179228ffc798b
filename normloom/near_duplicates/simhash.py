"""64-bit SimHash (Charikar 2002) and exact shingle Jaccard of texts.

Texts are compared in their normal form (`normloom.core.rows.text.normalise`). A feature is a run of n characters
or n words of it, hashed with 64-bit FNV-1a over its UTF-8 bytes and mixed, so codes are the same in
every process. A text too short for one n-gram is one feature; an empty one has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from normloom.core.rows.text import normalise
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.texts import FlatTexts, overlap, shingle_set, simhashes, similarities


def pack(texts: Sequence[str]) -> FlatTexts:
    """Normalise the texts and lay them end to end."""
    encoded = [normalise(text).encode("utf-8", "surrogatepass") for text in texts]
    bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=bounds[1:])
    return FlatTexts(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds)


def fingerprints(texts: Sequence[str] | FlatTexts, features: Features) -> npt.NDArray[np.uint64]:
    """Return the SimHash codes of n texts, (n,) uint64.

    A bit is the sign of its feature votes. A tie goes by one feature, which near-duplicates mostly share:
    always 0 would draw the codes of short texts together.
    """
    packed = texts if isinstance(texts, FlatTexts) else pack(texts)
    codes: npt.NDArray[np.uint64] = simhashes(*packed, features.grams(), features.weighting == "binary")
    return codes


def shingles(text: str, features: Features) -> npt.NDArray[np.uint64]:
    """Return the distinct feature hashes of a text, ascending."""
    found: npt.NDArray[np.uint64] = shingle_set(*pack([text]), 0, features.grams())
    return found


def jaccard(a: str, b: str, features: Features) -> float:
    """Return the Jaccard similarity of two texts' shingles; 1 if neither has any."""
    return float(overlap(shingles(a, features), shingles(b, features)))


def jaccards(packed: FlatTexts, left: Array, right: Array, features: Features) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarities of the text pairs (left[k], right[k])."""
    similarity: npt.NDArray[np.float64] = similarities(packed, left, right, features.grams())
    return similarity

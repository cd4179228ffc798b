"""64-bit SimHash (Charikar 2002) and exact shingle Jaccard of texts.

Texts are compared in their normal form (`normloom.core.rows.text.normalise`). A feature is a run of n characters
or n words of it, hashed with 64-bit FNV-1a over its UTF-8 bytes and mixed, so codes are the same in
every process. A text too short for one n-gram is one feature; an empty one has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from normloom.core.rows.text import normalise
from normloom.near_duplicates.arrays import extend
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.texts import FlatTexts, fold, overlap, shingle_set, simhashes, similarities

_PACKED = 1 << 16  # texts that are strings at once


def pack(texts: Sequence[str] | pl.Series) -> FlatTexts:
    """Normalise the texts and lay them end to end; of a series only a slice at a time is held as strings."""
    data, lengths = np.zeros(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    for start in range(0, len(texts), _PACKED):
        some = texts[start : start + _PACKED]
        piece, sizes = _folded(some) if isinstance(some, pl.Series) else _encoded(some)
        lengths[start + 1 : start + 1 + len(some)] = sizes
        extend(data, [piece])
    return FlatTexts(data, np.cumsum(lengths))


def _encoded(texts: Sequence[str]) -> tuple[Array, Array]:
    """Normalise the texts; return them end to end as UTF-8, and their lengths."""
    encoded = [normalise(text).encode("utf-8", "surrogatepass") for text in texts]
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), np.array([len(text) for text in encoded], dtype=np.int64)


def _folded(texts: pl.Series) -> tuple[Array, Array]:
    """Return what `_encoded` does; only texts beyond ASCII are ever strings."""
    beyond = texts.str.len_bytes() != texts.str.len_chars()
    if beyond.any():
        texts = texts.scatter(beyond.arg_true(), [normalise(text) for text in texts.filter(beyond)])
    _, bounds, data = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
    return fold(np.frombuffer(data, dtype=np.uint8), np.frombuffer(bounds, dtype=np.int64))


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

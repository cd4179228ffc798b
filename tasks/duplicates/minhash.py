"""Near-duplicates by Jaccard similarity alone: MinHash LSH proposes (datasketch), exact shingle Jaccard decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from normloom.near_duplicates.features import Features

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.near_duplicates.kernels.texts import FlatTexts

_SCHEME = "affine64"  # our shingle hashes have 64 bits
_SEED = 1


def bands(jaccard: float, *, permutations: int, recall: float) -> tuple[int, int]:
    """Return how many bands of how many hashes propose a pair at the threshold with probability `recall` or more.

    b bands of r hashes propose a pair of similarity s with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and
    Ullman, Mining of Massive Datasets, section 3.4); r is the largest that still keeps the recall, with as many
    bands as the permutations allow, two or more (datasketch takes no fewer). Raises ValueError if not even
    r = 1 keeps it.
    """
    for size in range(permutations // 2, 0, -1):
        count = permutations // size
        if 1 - (1 - jaccard**size) ** count >= recall:
            return count, size
    raise ValueError(
        f"{permutations} permutations propose a pair of Jaccard similarity {jaccard:g} with probability "
        f"{1 - (1 - jaccard) ** permutations:.2g}, less than the recall of {recall:g}: use more, or a higher jaccard"
    )


def find_similar(
    texts: FlatTexts,
    codes: npt.NDArray[np.uint64],
    *,
    features: Features,
    jaccard: float,
    permutations: int,
    recall: float,
    known: int = 0,
) -> pl.DataFrame:
    """Return the rows to remove, in order, as `find_duplicates` does.

    Rows are taken in order. A row is a duplicate when MinHash LSH proposes an earlier row that was kept and their
    shingles have a Jaccard similarity of at least `jaccard`. Its keeper is the most similar of them; ties
    go to the earliest. A row that the exact rule would remove is missed with a probability of at most
    1 - `recall`. Equal normalised texts are always duplicates. The first `known` rows all stay. `codes` are the SimHash
    codes of the texts, whose distance is reported. Raises ValueError as `bands` does.
    """
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

    from normloom.near_duplicates.find import DUPLICATES
    from normloom.near_duplicates.kernels.texts import overlap, shingle_set

    grams = features.grams()
    index = MinHashLSH(num_perm=permutations, params=bands(jaccard, permutations=permutations, recall=recall))
    empty = MinHash(num_perm=permutations, seed=_SEED, scheme=_SCHEME, hashfunc=int)
    found = []
    for row in range(len(codes)):
        own = shingle_set(*texts, row, grams)
        sketch = empty.copy()
        sketch.update_batch(own)
        proposed = index.query(sketch) if row >= known else []
        near = [(-overlap(own, shingle_set(*texts, other, grams)), other) for other in proposed]
        similarity, keeper = min(near, default=(0.0, row))
        if near and -similarity >= jaccard:
            distance = int(codes[row] ^ codes[keeper]).bit_count()
            found.append((row, keeper, distance, -similarity))
        else:
            index.insert(row, sketch, check_duplication=False)
    return pl.DataFrame(found, schema=DUPLICATES, orient="row")

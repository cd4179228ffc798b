"""Near-duplicate texts: which rows to remove, and which belong together.

SimHash codes closer than tau make candidates (`hamming` finds all of them), exact shingle Jaccard decides. Texts that
are alike enough repeat each other whatever their codes (`similar_sets` finds all of them).
Results do not depend on the number of threads, which all take pieces of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from normloom.near_duplicates import hamming
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.hamming import ClosePairs, close_pairs, pair_chunks
from normloom.near_duplicates.keepers import keeper_keys
from normloom.near_duplicates.kernels.clusters import join, roots
from normloom.near_duplicates.kernels.codes import NO_KEY, ROW_BITS, ROW_MASK, insert_all, mark_near
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.removal import mark_rows, similar_pairs
from normloom.near_duplicates.kernels.sets import Rule, store_sets
from normloom.near_duplicates.kernels.sketches import empty_sketches, may_reach
from normloom.near_duplicates.kernels.texts import FlatTexts
from normloom.near_duplicates.sharing import sharing
from normloom.near_duplicates.simhash import fingerprints, jaccards, pack
from normloom.near_duplicates.similar_sets import NO_SETS, empty_sets

__all__ = ["ClosePairs", "close_pairs", "clusters", "duplicates", "find_clusters", "find_duplicates", "pair_chunks"]
__all__ += ["DUPLICATES", "count_duplicates", "find_known", "near_pairs", "similar_to_known"]

DUPLICATES = {  # row `index` repeats the kept row `keeper`: their Hamming distance and shingle Jaccard
    "index": pl.Int64,
    "keeper": pl.Int64,
    "distance": pl.Int64,
    "jaccard": pl.Float64,
}


def duplicates(packed: FlatTexts, index: Array, keeper: Array, distance: Array, features: Features) -> pl.DataFrame:
    """Return which rows repeat which, with their shingle Jaccard, as `DUPLICATES` says."""
    columns = [index, keeper, distance, jaccards(packed, index, keeper, features)]
    return pl.DataFrame(dict(zip(DUPLICATES, columns, strict=True)), schema=DUPLICATES)


def find_duplicates(
    texts: Sequence[str] | pl.Series | FlatTexts,
    *,
    features: Features,
    tau: int,
    jaccard: float,
    alike: float | None = None,
    codes: npt.NDArray[np.uint64] | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """Return the rows to remove, in order, as `duplicates` does.

    Rows are taken in order. A row is a duplicate when its code is nearer than `tau` to the code of an
    earlier row that was kept and, if `jaccard` > 0, their shingles are at least that similar; or, with `alike`,
    when their shingles have at least that similarity. Its keeper is the nearest of them; ties go to the
    earliest. Equal normalised texts are always duplicates.
    `codes` are the fingerprints of the texts, if they have been made.
    """
    packed = texts if isinstance(texts, FlatTexts) else pack(texts)
    codes = fingerprints(packed, features) if codes is None else codes
    return _removed(packed, codes, 0, features, tau, jaccard, alike, threads)


def find_known(
    texts: Sequence[str],
    known: Sequence[str],
    known_codes: npt.NDArray[np.uint64],
    *,
    features: Features,
    tau: int,
    jaccard: float,
    alike: float | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """Return which new texts to remove, given the `known` ones, which all stay.

    `index` counts from the first new text, `keeper` over the known texts and then the new ones: the result of
    `find_duplicates` for both together, if none of the known repeats another. `known_codes` are the stored
    fingerprints of the known texts, made with the same features; without `alike`, the known texts near no
    new one are not read.
    Raises ValueError if there is not one code for each known text.
    """
    if len(known) != len(known_codes):
        raise ValueError(f"{len(known_codes)} codes for {len(known)} known texts: expected one each")
    new_codes = fingerprints(texts, features)
    near = np.arange(len(known)) if alike else np.flatnonzero(_near_any(known_codes, new_codes, tau, threads))
    packed = pack([*(known[position] for position in near.tolist()), *texts])
    codes = np.concatenate([known_codes[near], new_codes])
    places = pl.Series(np.concatenate([near, np.arange(len(known), len(known) + len(texts))]), dtype=pl.Int64)
    found = _removed(packed, codes, len(near), features, tau, jaccard, alike, threads)
    return found.with_columns(pl.col("index") - len(near), keeper=places.gather(found["keeper"]))


def similar_to_known(
    texts: Sequence[str], known: Sequence[str], *, features: Features, jaccard: float, threads: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return every text and known one whose shingles have a Jaccard similarity of at least `jaccard` (0.5 or more).

    As (text, known, similarity), sorted by text, then known; texts without a shingle are similar to none.
    """
    packed, first = pack([*known, *texts]), len(known)
    rule = Rule(packed, features.grams(), float(jaccard))
    with sharing(threads) as share:
        sets = empty_sets(packed, rule.grams, jaccard, share)
        store_sets(0, first, sets)
        made = share(lambda start, stop: similar_pairs(start, stop, first, sets, rule), first, first + len(texts))
    row, other = np.concatenate([np.empty((2, 0), dtype=np.int64), *made], axis=1)
    order = np.lexsort((other, row))
    row, other = row[order], other[order]
    return row - first, other, jaccards(packed, row, other, features)


def near_pairs(
    texts: FlatTexts,
    codes: npt.NDArray[np.uint64],
    *,
    features: Features,
    tau: int,
    jaccard: float,
    alike: float | None,
    across: int = 0,
    threads: int | None = None,
) -> ClosePairs:
    """Return all pairs of texts that repeat each other by the rule of `find_duplicates`: left < right, distance.

    With `across=n`, only pairs of one of the first n texts and a later one. In no order.
    """
    rule = Rule(texts, features.grams(), float(jaccard))
    found = []
    for chunk in pair_chunks(codes, tau, threads=threads):
        pairs = np.stack(chunk)
        if across:
            pairs = pairs[:, (pairs[0] < across) & (pairs[1] >= across)]
        found.append(pairs[:, jaccards(texts, pairs[0], pairs[1], features) >= jaccard] if jaccard > 0 else pairs)
    if alike:
        with sharing(threads) as share:
            sets = empty_sets(texts, rule.grams, alike, share)
            stored = across or len(codes)
            store_sets(0, stored, sets)
            made = share(lambda start, stop: similar_pairs(start, stop, stored, sets, rule), across, len(codes))
        right, left = np.concatenate([np.empty((2, 0), dtype=np.int64), *made], axis=1)
        distance = np.bitwise_count(codes[left] ^ codes[right]).astype(np.int64)
        new = (left < right) & (distance >= tau)  # the others are near by their codes
        found.append(np.stack([left[new], right[new], distance[new]]))
    left, right, distance = np.concatenate([np.empty((3, 0), dtype=np.int64), *found], axis=1)
    return left, right, distance


def count_duplicates(
    texts: FlatTexts, pairs: Array, taus: Sequence[int], *, features: Features, alike: float | None
) -> list[int]:
    """Return for each tau how many rows `find_duplicates` would remove.

    `pairs` is (3, pairs) int32: a row, an earlier one whose shingles are similar enough, and their distance; all pairs
    of them nearer than the largest tau. A row is marked with a bit for each tau at which it goes, so that one pass
    serves all.
    """
    steps = sorted(set(taus))
    reached = [sum((distance < tau) << position for position, tau in enumerate(steps)) for distance in range(steps[-1])]
    marks = np.zeros(len(texts.bounds) - 1, dtype=np.uint64)
    rule = Rule(texts, features.grams(), 0.0)
    with sharing(None) as share:
        sets = empty_sets(texts, rule.grams, alike, share) if alike else NO_SETS
    ordered = pairs[:, np.argsort(pairs[0], kind="stable")]
    mark_rows(ordered, np.array(reached, np.uint64), np.uint64((1 << len(steps)) - 1), sets, rule, marks)
    return [int((marks >> np.uint64(steps.index(tau)) & np.uint64(1)).sum()) for tau in taus]


def find_clusters(
    texts: Sequence[str] | FlatTexts,
    *,
    features: Features,
    tau: int,
    jaccard: float,
    codes: npt.NDArray[np.uint64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return for each of n texts the smallest index in its cluster, (n,) int64.

    Clusters are the connected components of near-duplicate pairs (distance < `tau`, shingle Jaccard >= `jaccard`).
    `codes` are the fingerprints of the texts, if they have been made.
    """
    packed = texts if isinstance(texts, FlatTexts) else pack(texts)
    codes = fingerprints(packed, features) if codes is None else codes
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    parents = np.arange(len(codes), dtype=np.int64)
    first: dict[bytes, int] = {}
    for row in np.flatnonzero(counts[inverse] > 1).tolist():  # equal texts have equal codes
        text = packed.data[packed.bounds[row] : packed.bounds[row + 1]].tobytes()
        parents[row] = first.setdefault(text, row)
    rows = np.flatnonzero(parents == np.arange(len(codes)))
    sketches, grams = empty_sketches(len(codes)), features.grams()
    for left, right, _ in pair_chunks(codes[rows], tau):
        labels = roots(parents)
        apart = labels[rows[left]] != labels[rows[right]]
        one, other = rows[left[apart]], rows[right[apart]]
        if jaccard > 0:  # of pairs with codes so far apart few are similar
            possible = may_reach(packed, one, other, grams, float(jaccard), sketches)
            one, other = one[possible], other[possible]
            similar = jaccards(packed, one, other, features) >= jaccard
            one, other = one[similar], other[similar]
        join(parents, one, other)
    return roots(parents)


def clusters(n: int, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each of n rows the smallest row that the pairs connect it with, (n,) int64."""
    parents = np.arange(n, dtype=np.int64)
    join(parents, left, right)
    return roots(parents)


def _removed(
    packed: FlatTexts,
    codes: Array,
    kept: int,
    features: Features,
    tau: int,
    jaccard: float,
    alike: float | None,
    threads: int | None,
) -> pl.DataFrame:
    """Return the rows to remove; the first `kept` rows all stay and are compared with none."""
    keys = keeper_keys(codes, kept, Rule(packed, features.grams(), float(jaccard)), tau, alike, threads)
    rows = np.flatnonzero(keys != NO_KEY)
    return duplicates(packed, rows, keys[rows] & ROW_MASK, keys[rows] >> ROW_BITS, features)


def _near_any(known: Array, codes: Array, tau: int, threads: int | None) -> npt.NDArray[np.bool_]:
    """Return for each known code whether one of the codes is nearer than `tau`."""
    index, plan = hamming.empty_index(known), hamming.plan_for(tau)
    insert_all(known, 0, index)
    near = np.zeros(len(known), dtype=np.bool_)
    with sharing(threads) as share:
        share(lambda start, stop: mark_near(codes[start:stop], index, plan, near), 0, len(codes))
    return near

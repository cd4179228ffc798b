"""Removal of near-duplicates shared over the processes of a Ray cluster, equal to that of one process.

Distinct texts are split into blocks, kept in Ray's object store. A task takes one block, or two, and returns the pairs
within it, or across them, that are near-duplicates by the rule. What goes is then decided here, row
by row, as it is in one process. So a process holds the codes and shingle sets of two blocks, whatever the number of
texts, and this one the texts and the pairs. The price: all pairs of a cluster are found, where one process looks for
those with kept rows only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from normloom.core.errors import ConfigError
from normloom.near_duplicates.features import Features
from normloom.near_duplicates.find import duplicates, near_pairs
from normloom.near_duplicates.hamming import plan_for
from normloom.near_duplicates.kernels.codes import NO_KEY, ROW_BITS, ROW_MASK
from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.removal import settle_pairs
from normloom.near_duplicates.kernels.texts import FlatTexts
from normloom.near_duplicates.simhash import fingerprints, pack

_Block = tuple[FlatTexts, Array]  # texts and their codes


class _Rule(NamedTuple):
    features: Features
    tau: int
    jaccard: float
    alike: float | None


def shared_duplicates(
    texts: Sequence[str] | pl.Series | FlatTexts,
    *,
    features: Features,
    tau: int,
    jaccard: float,
    alike: float | None = None,
    codes: npt.NDArray[np.uint64] | None = None,
    block: int = 1_000_000,
    threads: int = 1,
) -> pl.DataFrame:
    """Return what `find_duplicates` returns, the pairs found by the tasks of a cluster; Ray is started before.

    A task takes `threads` of the cluster's cores and two blocks of `block` texts. Raises ConfigError if Ray is not up,
    ValueError for a `tau` outside 1..64.
    """
    import ray

    plan_for(tau)
    if not ray.is_initialized():  # the first object put would start a cluster that nobody asked for
        raise ConfigError(
            "deduplicate.block needs Ray, which is not running: set resources.actors to 1, or leave out the block"
        )
    packed = texts if isinstance(texts, FlatTexts) else pack(texts)
    codes = fingerprints(packed, features) if codes is None else codes
    kinds, first = _kinds(packed)
    blocks = [first[start : start + block] for start in range(0, max(len(first), 1), block)]
    given = [(_taken(packed, rows), codes[rows]) for rows in blocks]
    found = list(_pairs(given, _Rule(features, tau, jaccard, alike), threads))
    one, other, distance = np.concatenate([np.empty((3, 0), dtype=np.int64), *found], axis=1)
    order = np.argsort(np.concatenate([one, other]), kind="stable")
    near = np.concatenate([other, one])[order]
    bounds = np.searchsorted(np.concatenate([one, other])[order], np.arange(len(first) + 1))
    keys = np.full(len(codes), NO_KEY, dtype=np.int64)
    settle_pairs(kinds, bounds, near, np.tile(distance, 2)[order], keys)
    rows = np.flatnonzero(keys != NO_KEY)
    return duplicates(packed, rows, keys[rows] & ROW_MASK, keys[rows] >> ROW_BITS, features)


def _kinds(packed: FlatTexts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each text the number of those that equal it, in the order of their first ones, and these."""
    kinds: dict[bytes, int] = {}
    slices = pairwise(packed.bounds.tolist())
    kind = np.array([kinds.setdefault(packed.data[a:b].tobytes(), len(kinds)) for a, b in slices], dtype=np.int64)
    _, first = np.unique(kind, return_index=True)
    return kind, first.astype(np.int64)


def _pairs(given: Sequence[_Block], rule: _Rule, threads: int) -> Iterator[Array]:
    """Yield the pairs of distinct texts that repeat each other, by their places in all blocks: (3, m) int64."""
    import ray

    starts = np.cumsum([0, *(len(codes) for _, codes in given)]).tolist()
    blocks = [ray.put(one) for one in given]
    search = ray.remote(num_cpus=threads)(_pairs_of)
    units = deque(combinations_with_replacement(range(len(blocks)), 2))
    most = 2 * max(int(ray.cluster_resources().get("CPU", 1)) // threads, 1)
    working: deque[ray.ObjectRef[Array]] = deque()
    while units or working:
        while units and len(working) < most:
            unit = sorted(set(units.popleft()))
            working.append(search.remote([starts[k] for k in unit], rule, threads, *(blocks[k] for k in unit)))
        yield ray.get(working.popleft())


def _taken(packed: FlatTexts, rows: Array) -> FlatTexts:
    """Return the texts of some rows, end to end."""
    begin, end = packed.bounds[rows], packed.bounds[rows + 1]
    bounds = np.concatenate([[0], np.cumsum(end - begin)])
    parts = [packed.data[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
    return FlatTexts(np.concatenate([np.empty(0, dtype=np.uint8), *parts]), bounds)


def _pairs_of(starts: list[int], rule: _Rule, threads: int, *blocks: _Block) -> Array:
    """Return the pairs within one block, or between two; the kinds of a block count from its start."""
    numbers = np.concatenate([start + np.arange(len(codes)) for start, (_, codes) in zip(starts, blocks, strict=True)])
    sizes = [texts.bounds[-1] for texts, _ in blocks]
    data = np.concatenate([texts.data for texts, _ in blocks])
    bounds = np.concatenate([[0], *(texts.bounds[1:] + sum(sizes[:k]) for k, (texts, _) in enumerate(blocks))])
    packed, codes = FlatTexts(data, bounds), np.concatenate([codes for _, codes in blocks])
    across = len(blocks[0][1]) if len(blocks) > 1 else 0
    left, right, distance = near_pairs(packed, codes, **rule._asdict(), across=across, threads=threads)
    return np.stack([numbers[left], numbers[right], distance])

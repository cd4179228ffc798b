"""The search for near codes shared over the processes of a Ray cluster.

The codes are cut into blocks that lie in Ray's object store. A task searches one block, or two together and keeps the
pairs across them: so a process holds the index of two blocks, whatever the number of codes. The price is that the
pairs within a block are met again in each of its tasks: the comparisons of a search of one process, up to twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.hamming import ClosePairs, pair_chunks, plan_for
from normloom.near_duplicates.kernels.compiled import Array


def shared_pair_chunks(
    codes: npt.NDArray[np.uint64], tau: int, *, block: int = 4_000_000, threads: int = 1
) -> Iterator[ClosePairs]:
    """Yield the pairs of `hamming.pair_chunks` for n codes, (n,) uint64, one chunk for each two blocks.

    Chunks and their order depend on `block`, the codes in a block, and not on the cluster. A task takes `threads` of
    its cores, some 140 bytes for each code of a block and 24 for each pair that it finds. Ray is started before.
    Raises ValueError for a `tau` outside 1..64.
    """
    import ray

    plan_for(tau)
    starts = range(0, max(len(codes), 1), block)
    blocks = [ray.put(codes[start : start + block]) for start in starts]
    search = ray.remote(num_cpus=threads)(_pairs_of)
    units = deque(combinations_with_replacement(range(len(starts)), 2))
    most = 2 * max(int(ray.cluster_resources().get("CPU", 1)) // threads, 1)
    working: deque[ray.ObjectRef[Array]] = deque()
    while units or working:
        while units and len(working) < most:
            unit = sorted(set(units.popleft()))
            working.append(search.remote([starts[k] for k in unit], tau, threads, *(blocks[k] for k in unit)))
        left, right, distance = ray.get(working.popleft())
        yield left, right, distance


def _pairs_of(starts: list[int], tau: int, threads: int, *blocks: Array) -> Array:
    """Return the pairs within one block, or between two, (3, m) int64; the rows of a block count from its start."""
    rows = np.concatenate([np.arange(len(block)) + start for start, block in zip(starts, blocks, strict=True)])
    first = len(blocks[0])
    found = [np.empty((3, 0), dtype=np.int64)]
    for left, right, distance in pair_chunks(np.concatenate(blocks), tau, threads=threads):
        wanted = (left < first) & (right >= first) if len(blocks) > 1 else slice(None)
        found.append(np.stack([rows[left[wanted]], rows[right[wanted]], distance[wanted]]))
    return np.concatenate(found, axis=1)

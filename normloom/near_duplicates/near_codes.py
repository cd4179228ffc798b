"""Codes that come one by one, each compared with all that were kept before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.hamming import empty_index, plan_for
from normloom.near_duplicates.kernels.codes import ROW_BITS, ROW_MASK, insert_all, neighbours


class NearCodes:
    """Codes at hand, (n,) uint64, and those added since: which of them is nearest to a code, nearer than `tau`.

    A look-up among the codes at hand takes the time of a few hundred of them, however many there are; those added
    are gone through one by one. Raises ValueError for a `tau` outside 1..64.
    """

    def __init__(self, codes: npt.NDArray[np.uint64], tau: int) -> None:
        self._plan = plan_for(tau)
        self._index = empty_index(codes)
        insert_all(codes, 0, self._index)
        self._found = np.empty(len(codes), dtype=np.int64)
        self._added = np.empty(64, dtype=np.uint64)
        self._count = 0

    def nearest(self, code: np.uint64) -> int | None:
        """Return the place of the nearest code, the earliest of several; None if none is nearer than tau."""
        tau = int(self._plan.tau)
        near = neighbours(code, self._index, self._plan, self._found)
        place, least = (int(near[0]) & ROW_MASK, int(near[0]) >> ROW_BITS) if len(near) else (None, tau)
        if self._count:
            distances = np.bitwise_count(self._added[: self._count] ^ code)
            if distances[first := int(distances.argmin())] < least:
                return len(self._found) + first
        return place

    def add(self, code: np.uint64) -> None:
        """Add a code after all others."""
        if self._count == len(self._added):
            self._added = np.concatenate([self._added, np.empty_like(self._added)])
        self._added[self._count] = code
        self._count += 1

"""Codes that come one by one, each compared with all that were kept before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.hamming import empty_index, plan_for
from normloom.near_duplicates.kernels.codes import ROW_BITS, ROW_MASK, SearchPlan, insert_all, neighbours


class _Indexed:
    """Codes in an index; their rows count from `first`."""

    def __init__(self, codes: npt.NDArray[np.uint64], first: int) -> None:
        self.codes, self.first = codes, first
        self._index = empty_index(codes)
        insert_all(codes, 0, self._index)
        self._found = np.empty(len(codes), dtype=np.int64)

    def nearest(self, code: np.uint64, plan: SearchPlan) -> tuple[int, int] | None:
        """Return distance and place of the nearest code, the earliest of several."""
        near = neighbours(code, self._index, plan, self._found)
        return (int(near[0]) >> ROW_BITS, self.first + (int(near[0]) & ROW_MASK)) if len(near) else None


class NearCodes:
    """Codes at hand, (n,) uint64, and those added since: which of them is nearest to a code, nearer than `tau`.

    A look-up among many codes takes the time of a few hundred of them, however many there are. Those added are indexed
    `tail` at a time, in indexes that are merged when they are as large as the one before. Raises ValueError for a `tau`
    outside 1..64.
    """

    def __init__(self, codes: npt.NDArray[np.uint64], tau: int, *, tail: int = 1024) -> None:
        self._plan = plan_for(tau)
        self._at_hand = _Indexed(codes, 0)
        self._later: list[_Indexed] = []
        self._tail = np.empty(tail, dtype=np.uint64)
        self._first, self._count = len(codes), 0  # of the tail

    def nearest(self, code: np.uint64) -> int | None:
        """Return the place of the nearest code, the earliest of several; None if none is nearer than tau."""
        found = [near for one in (self._at_hand, *self._later) if (near := one.nearest(code, self._plan))]
        if self._count:
            distances = np.bitwise_count(self._tail[: self._count] ^ code)
            if distances[first := int(distances.argmin())] < int(self._plan.tau):
                found.append((int(distances[first]), self._first + first))
        return min(found)[1] if found else None

    def add(self, code: np.uint64) -> None:
        """Add a code after all others."""
        if self._count == len(self._tail):
            self._index_tail()
        self._tail[self._count] = code
        self._count += 1

    def _index_tail(self) -> None:
        codes, first = self._tail.copy(), self._first
        self._first, self._count = self._first + self._count, 0
        while self._later and len(self._later[-1].codes) <= len(codes):
            before = self._later.pop()
            codes, first = np.concatenate([before.codes, codes]), before.first
        self._later.append(_Indexed(codes, first))

"""Near-duplicates by meaning: which rows have a vector that is near to that of a kept row.

An exact search, block against block: products of matrices in single precision propose, a cosine summed in one order
decides. So what is found does not depend on the number of threads. It compares each row with all kept ones: n rows of
d dimensions take up to n^2 d multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from normloom.near_duplicates.kernels.compiled import Array
from normloom.near_duplicates.kernels.vectors import cosines

DECIMALS = 6  # of a cosine: vectors in single precision hold no more
_BLOCK = 1024  # rows compared at once
_TILE = 16_384  # with as many kept ones


@dataclass(frozen=True, slots=True)
class NearVector:
    """Row `index` repeats the kept row `keeper`; the cosine of their vectors."""

    index: int
    keeper: int
    similarity: float


def find_by_vector(
    texts: Sequence[str], vectors: npt.NDArray[np.float32], *, similarity: float, known: int = 0
) -> list[NearVector]:
    """Return the rows to remove, in order.

    Rows are taken in order. A row is a duplicate of the kept row whose text equals its own, or else of the kept row
    whose vector has the highest cosine with its own, if that is at least `similarity`; ties go to the earliest.
    Cosines are rounded to six decimals. The first `known` rows all stay. `texts` are normalised; `vectors` are (n, d),
    of any length. Takes 4 d bytes a row, and 100 MB.
    """
    units = _units(vectors)  # those of the kept rows move to the front, in order
    kept = np.empty(len(texts), dtype=np.int64)
    stays = np.ones(len(texts), dtype=np.bool_)
    holders: dict[str, int] = {}  # the kept row of a text
    count, found = 0, []
    for start in range(0, len(texts), _BLOCK):
        stop = min(start + _BLOCK, len(texts))
        proposed = list(_proposed(units, start, stop, kept[:count], similarity))
        pairs = _Pairs(range(start, stop), vectors, proposed, similarity)
        for row in range(start, stop):
            holder = holders.get(texts[row])
            keeper, cosine = (None, 0.0) if row < known else pairs.nearest(row, stays)
            if holder is not None and row >= known:
                keeper, cosine = holder, float(_rounded(vectors, np.array([row]), np.array([holder]))[0])
            if keeper is None:
                kept[count], units[count] = row, units[row]
                count += 1
                holders.setdefault(texts[row], row)
            else:
                stays[row] = False
                found.append(NearVector(row, keeper, cosine))
    return found


class _Pairs:
    """The pairs of a block's rows with earlier ones whose cosine is high enough."""

    def __init__(self, rows: range, vectors: Array, proposed: list[Array], similarity: float) -> None:
        row, other = np.concatenate(proposed, axis=1)
        cosine = _rounded(vectors, row, other)
        row, other, cosine = (values[cosine >= similarity] for values in (row, other, cosine))
        order = np.lexsort((other, -cosine, row))
        self._first = rows.start
        self._others, self._cosines = other[order], cosine[order]
        self._bounds = np.searchsorted(row[order], np.arange(rows.start, rows.stop + 1))

    def nearest(self, row: int, stays: npt.NDArray[np.bool_]) -> tuple[int | None, float]:
        """Return the nearest row that stays, the earliest of several, and the cosine."""
        start, stop = self._bounds[row - self._first : row - self._first + 2]
        staying = np.flatnonzero(stays[self._others[start:stop]])
        if not len(staying):
            return None, 0.0
        place = start + staying[0]
        return int(self._others[place]), float(self._cosines[place])


def _proposed(units: Array, start: int, stop: int, kept: Array, similarity: float) -> Iterator[Array]:
    """Yield pairs that may be nearest ones, (2, m) int64: a row of the block and a kept or earlier one of the block.

    Two products in single precision differ from the cosines by less than the slack, rounding included.
    """
    slack = 2.0**-23 * units.shape[1] + 2.0**-19
    block, least = units[start:stop], similarity - slack
    for begin in range(0, len(kept), _TILE):
        tile = kept[begin : begin + _TILE]
        products = block @ units[begin : begin + len(tile)].T
        most = products.max(axis=1)
        rows = np.flatnonzero(most >= least)
        row, column = np.nonzero(products[rows] >= np.maximum(most[rows] - slack, least)[:, None])
        yield np.stack([rows[row] + start, tile[column]])
    row, column = np.nonzero(np.tril(block @ block.T >= least, -1))
    yield np.stack([row + start, column + start])


def _rounded(vectors: Array, left: Array, right: Array) -> npt.NDArray[np.float64]:
    return np.asarray(np.round(cosines(vectors, left, right), DECIMALS), dtype=np.float64)


def _units(vectors: Array) -> npt.NDArray[np.float32]:
    """Return the vectors at length 1; what has none stays."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    units: npt.NDArray[np.float32] = (vectors / np.where(length > 0, length, 1)[:, None]).astype(np.float32)
    return units

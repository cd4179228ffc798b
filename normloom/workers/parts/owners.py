"""Which part each row of a side table belongs to, by the id of its owner."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl


class Owners:
    """The parts of rows, by the rows' ids.

    An id is looked up by its hash and confirmed by itself: a join of millions of ids as texts holds several times as
    much. Takes 17 bytes an id besides the ids and the parts; the number of rows must be below 2**32.
    """

    def __init__(self, ids: pl.Series, parts: npt.NDArray[np.int32]) -> None:
        self._ids, self._parts = ids.rechunk(), parts
        hashes = self._ids.hash().to_numpy()
        self._rows = np.argsort(hashes).astype(np.uint32)
        self._hashes = hashes[self._rows]
        repeats = self._hashes[1:] == self._hashes[:-1]
        self._unique = ~(np.append(repeats, False) | np.append(False, repeats))

    def find(self, named: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the column `part`, null if their `key` is no id; a row for each part with a row of that id.

        They are in no order.
        """
        if self._ids.is_empty():
            return named.with_columns(part=pl.lit(None, dtype=pl.Int32))
        key = named["key"]
        at = np.minimum(np.searchsorted(self._hashes, key.hash().to_numpy()), len(self._hashes) - 1)
        rows = self._rows[at]
        sure = pl.Series(self._unique[at]) & self._ids.gather(rows).eq_missing(key)
        found = named.with_columns(part=pl.Series(self._parts[rows])).filter(sure)
        if sure.all():
            return found
        others = named.filter(~sure)  # of no row, of several, or of one whose hash another has too
        known = pl.DataFrame({"key": self._ids, "part": self._parts})
        known = known.filter(pl.col("key").is_in(others["key"].unique().implode()))
        return pl.concat([found, others.join(known, on="key", how="left")])

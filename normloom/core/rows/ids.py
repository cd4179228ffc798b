"""Row ids and the seeds that belong to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import polars as pl

_SEPARATOR = "\x1f"
_AT_ONCE = 16_384  # rows whose families are held as text
_LONG = 64  # bytes of a family beyond which its digest takes less memory


def _digest(*fields: str) -> bytes:
    return hashlib.blake2b(_SEPARATOR.join(fields).encode(), digest_size=16).digest()


def row_id(system: str, stage: str, parents: Sequence[str], ordinal: int) -> str:
    """Return the id of the row that `stage` made as child number `ordinal` of `parents` (32 hex digits).

    The id does not depend on the stage key, so it survives rebuilds.
    """
    return _digest(system, stage, *parents, str(ordinal)).hex()


def row_ids(system: str, stage: str, rows: pl.DataFrame, family: pl.Expr) -> list[str]:
    """Return the ids of rows in order; siblings, rows of the same `family` (a list of texts), are numbered from 0."""
    begun = hashlib.blake2b(_SEPARATOR.join((system, stage, "")).encode(), digest_size=16)

    def id_of(numbered: str) -> str:
        hasher = begun.copy()
        hasher.update(numbered.encode())
        return hasher.hexdigest()

    apart = pl.concat([pl.Series(dtype=pl.UInt64), *(some.hash() for some in _joined(rows, family))])
    if apart.n_unique() == rows.height:  # no row has a sibling
        return [id_of(numbered) for some in _joined(rows, family) for numbered in some + "0"]
    seen: dict[bytes, int] = {}
    ids = []
    for joined in (joined for some in _joined(rows, family) for joined in some):
        known = joined.encode()
        if len(known) > _LONG:
            known = hashlib.blake2b(known, digest_size=16).digest()
        number = seen.get(known, 0)
        seen[known] = number + 1
        ids.append(id_of(f"{joined}{number}"))
    return ids


def _joined(rows: pl.DataFrame, family: pl.Expr) -> Iterator[pl.Series]:
    """Yield the families of rows as texts, some thousand at a time: each name in it and a separator."""
    texts = pl.col("family").list.join(_SEPARATOR)
    closed = pl.when(pl.col("family").list.len() > 0).then(texts + _SEPARATOR).otherwise(texts)
    for some in rows.iter_slices(_AT_ONCE):
        yield some.select(family=family).select(closed.alias("joined"))["joined"]


def seed(row: str, *attempt: int | str) -> int:
    """Return the sampling seed of one attempt at a row, in [0, 2**63)."""
    return int.from_bytes(_digest("seed", row, *map(str, attempt))[:8], "big") >> 1

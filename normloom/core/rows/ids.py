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

    hashes = pl.concat([pl.Series(dtype=pl.UInt64), *(some.hash() for some in _joined(rows, family))])
    with_siblings = hashes.is_duplicated()
    seen: dict[bytes, int] = {}
    ids: list[str] = []
    for some in _joined(rows, family):
        siblings = with_siblings.slice(len(ids), len(some)).arg_true()
        numbered = (some + "0").to_list()
        for place, joined in zip(siblings, some.gather(siblings), strict=True):
            known = joined.encode()
            if len(known) > _LONG:
                known = hashlib.blake2b(known, digest_size=16).digest()
            number = seen.get(known, 0)
            seen[known] = number + 1
            if number:
                numbered[place] = f"{joined}{number}"
        ids += map(id_of, numbered)
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

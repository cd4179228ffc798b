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


def row_ids(system: str, stage: str, rows: pl.DataFrame, *family: str) -> list[str]:
    """Return the ids of rows in order; siblings are numbered from 0.

    Those are rows with the same texts in the columns of their `family`, which hold a text or a list of texts each.
    """
    begun = hashlib.blake2b(_SEPARATOR.join((system, stage, "")).encode(), digest_size=16)

    def id_of(numbered: bytes) -> str:
        hasher = begun.copy()
        hasher.update(numbered)
        return hasher.hexdigest()

    hashes = pl.concat([pl.Series(dtype=pl.UInt64), *(some.hash() for some in _joined(rows, family))])
    with_siblings = hashes.is_duplicated()
    seen: dict[bytes, int] = {}
    ids: list[str] = []
    for some in _joined(rows, family):
        siblings = with_siblings.slice(len(ids), len(some)).arg_true()
        numbered = (some + "0").cast(pl.Binary).to_list()
        for place, joined in zip(siblings, some.gather(siblings), strict=True):
            known = joined.encode()
            if len(known) > _LONG:
                known = hashlib.blake2b(known, digest_size=16).digest()
            number = seen.get(known, 0)
            seen[known] = number + 1
            if number:
                numbered[place] = f"{joined}{number}".encode()
        ids += map(id_of, numbered)
    return ids


def _joined(rows: pl.DataFrame, family: Sequence[str]) -> Iterator[pl.Series]:
    """Yield the families of rows as texts, some thousand at a time: each name in it and a separator."""
    joined = pl.concat_str(_closed(name, rows.schema[name]) for name in family)
    for some in rows.select(family).iter_slices(_AT_ONCE):
        yield some.select(joined.alias("joined"))["joined"]


def _closed(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return the texts of a column as one text, each followed by a separator."""
    column = pl.col(name)
    if not isinstance(dtype, pl.List | pl.Array):
        return column.cast(pl.String) + _SEPARATOR
    texts = column.cast(pl.List(pl.String))
    joined = texts.list.join(_SEPARATOR)
    return pl.when(texts.list.len() > 0).then(joined + _SEPARATOR).otherwise(joined)


def seed(row: str, *attempt: int | str) -> int:
    """Return the sampling seed of one attempt at a row, in [0, 2**63)."""
    return int.from_bytes(_digest("seed", row, *map(str, attempt))[:8], "big") >> 1

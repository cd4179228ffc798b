"""Row ids and the seeds that belong to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_SEPARATOR = "\x1f"


def _digest(*fields: str) -> bytes:
    return hashlib.blake2b(_SEPARATOR.join(fields).encode(), digest_size=16).digest()


def row_id(system: str, stage: str, parents: Sequence[str], ordinal: int) -> str:
    """Return the id of the row that `stage` made as child number `ordinal` of `parents` (32 hex digits).

    The id does not depend on the stage key, so it survives rebuilds.
    """
    return _digest(system, stage, *parents, str(ordinal)).hex()


def row_ids(system: str, stage: str, parents: Iterable[Sequence[str]]) -> list[str]:
    """Return the ids of rows given in order; siblings (rows of the same parents) are numbered from 0."""
    seen: dict[bytes, int] = {}
    begun = hashlib.blake2b(_SEPARATOR.join((system, stage, "")).encode(), digest_size=16)
    ids = []
    for family in parents:
        joined = _SEPARATOR.join([*family, ""]).encode()
        known = joined if len(family) == 1 else hashlib.blake2b(joined, digest_size=16).digest()  # the smaller one
        number = seen.get(known, 0)
        seen[known] = number + 1
        hasher = begun.copy()
        hasher.update(joined + b"%d" % number)
        ids.append(hasher.hexdigest())
    return ids


def seed(row: str, *attempt: int | str) -> int:
    """Return the sampling seed of one attempt at a row, in [0, 2**63)."""
    return int.from_bytes(_digest("seed", row, *map(str, attempt))[:8], "big") >> 1

"""Pieces of a large file, cut where its rows say so: tables that share rows share pieces, wherever these stand.

A stage that looks at all rows at once writes one file, and one new row makes it another. What reads it in parts asks
which pieces a part stands in, and finds that all but a few are those of the table before.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from itertools import pairwise

import polars as pl

from normloom.core.table import Pieces

LARGE = 16_384  # rows above which a file has pieces
_ENDS = [f"{number:03x}" for number in range(4)]  # last digits of the ids that end a piece: one in 1,024


def pieces_of(rows: pl.DataFrame) -> Pieces:
    """Return the pieces of a table, none if it is small: each ends after a row whose random id says so."""
    if rows.height <= LARGE:
        return ()
    ends = (rows["row_id"].str.tail(3).is_in(_ENDS).arg_true() + 1).to_list()
    bounds = [0, *ends, *([rows.height] if rows.height not in ends[-1:] else [])]
    return tuple((stop - start, rows_digest([rows[start:stop]])) for start, stop in pairwise(bounds))


def rows_digest(frames: Sequence[pl.DataFrame]) -> str:
    """Return the digest of the columns and rows of some frames (32 hex digits)."""
    hasher = hashlib.blake2b(digest_size=16)
    for frame in frames:
        buffer = io.BytesIO()
        frame.rechunk().write_parquet(buffer, compression="uncompressed", statistics=False)
        hasher.update(hashlib.sha256(buffer.getbuffer()).digest())
    return hasher.hexdigest()

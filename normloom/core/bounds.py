"""Upper bounds of what stages read, request and write, from their settings and the source alone.

A token is at least one byte of text, for every tokenizer that falls back to bytes, so the bytes of a text bound its
tokens. A model writes at most `max_tokens` of its own tokens; another model may read them as twice as many.
Requests are counted as an endpoint does: one per candidate and per question, each with its full prompt. Local engines
share prompts, so they read less. Retries are not included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

CHAT = 128  # tokens that a chat template may add to a request
REREAD = 2  # tokens as which another model may read one that was written
_NO_TEXT = frozenset({"row_id", "parents"})  # what no model is shown


@dataclass(frozen=True, kw_only=True)
class Size:
    """At most `rows` rows, whose texts have at most `tokens` tokens together and `longest` in one row."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            rows=self.rows + other.rows,
            tokens=self.tokens + other.tokens,
            longest=max(self.longest, other.longest),
        )

    def times(self, copies: int, *, more: int = 0) -> Size:
        """Return the size of that many copies of each row, each with a text of `more` tokens besides."""
        rows = self.rows * copies
        return Size(rows=rows, tokens=self.tokens * copies + rows * more, longest=self.longest + more if rows else 0)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a stage makes and asks at most. `questions` says that its requests are questions with given
    answers, and `known` is False if only the rows that it reads are known."""

    size: Size
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    questions: bool = False
    known: bool = True


BoundOf = Callable[[Any, Sequence[Size], Sequence[Size]], Bound]  # of a stage, from the sizes of its inputs and sides


def total(sizes: Sequence[Size]) -> Size:
    """Return the size of tables laid end to end."""
    return sum(sizes, Size())


def size_of(rows: pl.LazyFrame) -> Size:
    """Return the size of an existing table; every text column counts, as a step may show it to a model."""
    texts = [_bytes(name, dtype) for name, dtype in rows.collect_schema().items() if _has_text(name, dtype)]
    length = pl.sum_horizontal(texts) if texts else pl.lit(0)
    counted = rows.select(length.fill_null(0).alias("bytes")).select(
        pl.col("bytes").sum().alias("tokens"), pl.col("bytes").max().fill_null(0).alias("longest")
    )
    tokens, longest = counted.collect().row(0)
    return Size(rows=rows.select(pl.len()).collect().item(), tokens=int(tokens), longest=int(longest))


def _has_text(name: str, dtype: pl.DataType) -> bool:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    return name not in _NO_TEXT and isinstance(inner, pl.String | pl.Struct)


def _bytes(name: str, dtype: pl.DataType) -> pl.Expr:
    text = pl.col(name) if dtype == pl.String else pl.struct(name).struct.json_encode()
    return text.str.len_bytes().fill_null(0).cast(pl.Int64)

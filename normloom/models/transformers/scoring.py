"""Logits at the end of questions about one context: all in one pass, or each with its whole prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from normloom.models.transformers.packing import PackedRow, batches, chunks, pack
from normloom.models.transformers.reading import Prefix, Reader, padded


@dataclass(frozen=True)
class BatchLimits:
    """Sizes of a batch: rows, tokens of one row before its questions are cut into several, tokens in all."""

    rows: int
    row_tokens: int
    tokens: int


class QuestionLogits(NamedTuple):
    """Float32 logits (questions, vocabulary) of some questions of one row, from question `first` on."""

    row: int
    first: int
    logits: torch.Tensor


class _Part(NamedTuple):
    row: int
    first: int
    content: PackedRow


def read_packed(
    reader: Reader, head: Sequence[int], rows: Mapping[int, PackedRow], limits: BatchLimits
) -> Iterator[QuestionLogits]:
    """Read rows after `head`, which is read once; the context of a row that is cut is read once too."""
    prefix = reader.prefix(head)
    whole = [_Part(i, 0, row) for i, row in rows.items() if len(row) <= limits.row_tokens]
    yield from _read(reader, prefix, whole, limits)
    for i, row in rows.items():
        if len(row) > limits.row_tokens:
            parts, first = [], 0
            for branches in chunks(row.branches, tokens=limits.row_tokens):
                parts.append(_Part(i, first, PackedRow([], branches)))
                first += len(branches)
            yield from _read(reader, reader.extended(prefix, row.trunk), parts, limits)


def _read(reader: Reader, prefix: Prefix, parts: Sequence[_Part], limits: BatchLimits) -> Iterator[QuestionLogits]:
    lengths = [prefix.length + len(part.content) for part in parts]
    for batch in batches(lengths, rows=limits.rows, tokens=limits.tokens):
        packed = pack([parts[at].content for at in batch], prefix=prefix.length)
        reader.tokens += sum(len(parts[at].content) for at in batch)
        cache = prefix.cache(len(batch))
        logits = reader.logits(packed.ids, mask=packed.mask, positions=packed.positions, cache=cache, keep=packed.ends)
        for line, at in zip(logits, batch, strict=True):
            part = parts[at]
            yield QuestionLogits(part.row, part.first, line[: len(part.content.branches)])


def read_whole(
    reader: Reader, head: Sequence[int], rows: Mapping[int, PackedRow], limits: BatchLimits
) -> Iterator[QuestionLogits]:
    """Read each question with all that comes before it: for models that cannot share, and for comparison."""
    asked = [(i, k, [*head, *row.trunk, *branch]) for i, row in rows.items() for k, branch in enumerate(row.branches)]
    lengths = [len(ids) for _, _, ids in asked]
    for batch in batches(lengths, rows=limits.rows, tokens=limits.tokens):
        ids, mask, positions = padded([asked[at][2] for at in batch])
        reader.tokens += sum(lengths[at] for at in batch)
        of = [asked[at][0] for at in batch]
        logits = reader.logits(ids, mask=mask, positions=positions, cache=None, keep=1, of=of)
        for line, at in zip(logits, batch, strict=True):
            yield QuestionLogits(*asked[at][:2], line)

"""Contexts with the questions about them, packed into one forward pass with a tree mask.

A row is a trunk (the context) and branches (the questions): a token sees the shared prefix, the trunk before
it and its own branch before it. Attention goes by mask and position, so tokens may lie in any order; the last
token of each branch, where the answer is read, lies at the end of the row and the model's head runs there only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_TRUNK, _PADDING = -1, -2


@dataclass(frozen=True)
class PackedRow:
    """Token ids of one context (which may be empty) and of the questions about it (at least one, none empty)."""

    trunk: Sequence[int]
    branches: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.trunk) + sum(map(len, self.branches))


@dataclass(frozen=True)
class Packed:
    """Rows as tensors: `ids` and `positions` (rows, length), `mask` (rows, 1, length, prefix + length, true = seen).

    The last token of branch k of every row is in column `length - ends + k`.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    ends: int


def pack(rows: Sequence[PackedRow], *, prefix: int) -> Packed:
    """Pack rows that follow a shared prefix of `prefix` tokens."""
    ends = max(len(row.branches) for row in rows)
    bodies = max(len(row) - len(row.branches) for row in rows)
    shape = (len(rows), bodies + ends)
    ids = np.zeros(shape, np.int64)
    positions = np.zeros(shape, np.int64)
    branch = np.full(shape, _PADDING, np.int64)

    for i, row in enumerate(rows):
        start = prefix + len(row.trunk)
        _write(ids[i], positions[i], branch[i], 0, row.trunk, prefix, _TRUNK)
        column = len(row.trunk)
        for k, tokens in enumerate(row.branches):
            _write(ids[i], positions[i], branch[i], column, tokens[:-1], start, k)
            _write(ids[i], positions[i], branch[i], bodies + k, tokens[-1:], start + len(tokens) - 1, k)
            column += len(tokens) - 1

    # A padding token sees padding, so no line of the mask is empty (an empty one would make NaN).
    kin = (branch[:, None, :] == _TRUNK) | (branch[:, None, :] == branch[:, :, None])
    seen = kin & (positions[:, None, :] <= positions[:, :, None])
    mask = np.concatenate([np.ones((*shape, prefix), bool), seen], axis=2)
    return Packed(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask[:, None]), ends)


def _write(
    ids: np.ndarray, positions: np.ndarray, branch: np.ndarray, column: int, tokens: Sequence[int], start: int, k: int
) -> None:
    where = slice(column, column + len(tokens))
    ids[where] = tokens
    positions[where] = np.arange(start, start + len(tokens))
    branch[where] = k


def chunks(branches: Sequence[Sequence[int]], *, tokens: int) -> Iterator[list[Sequence[int]]]:
    """Cut branches, in order, into runs of at most `tokens` tokens (a longer branch is a run of its own)."""
    run: list[Sequence[int]] = []
    held = 0
    for branch in branches:
        if run and held + len(branch) > tokens:
            yield run
            run, held = [], 0
        run.append(branch)
        held += len(branch)
    if run:
        yield run


def batches(lengths: Sequence[int], *, rows: int, tokens: int) -> Iterator[list[int]]:
    """Group items by length, longest first: indices of at most `rows` items and `tokens` padded tokens a batch.

    No item is padded to more than twice its length.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch:
            longest = lengths[batch[0]]
            if len(batch) == rows or (len(batch) + 1) * longest > tokens or 2 * lengths[index] < longest:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch

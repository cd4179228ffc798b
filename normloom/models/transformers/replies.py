"""How likely a causal model is to give replies that are known: one forward pass over prompts and their replies.

Replies to one prompt lie after it in one row, each seeing the prompt and itself, so the prompt is read once; a reply
that is asked about twice is read once, too. The preference pairs of a prompt share both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from normloom.models.requests.prompts import Exchange
from normloom.models.transformers.packing import batches, chunks
from normloom.models.transformers.reading import Reader

_PROMPT, _PADDING = -1, -2


@dataclass(frozen=True)
class _Row:
    """A prompt and different replies to it; `places[k]` are the exchanges that ask about reply k."""

    prompt: tuple[int, ...]
    replies: Sequence[Sequence[int]]
    indexes: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.replies))

    @property
    def asked(self) -> int:
        """Exchanges that it answers."""
        return sum(map(len, self.indexes))


def reply_log_probs(
    reader: Reader,
    exchanges: Sequence[Exchange],
    *,
    rows: int,
    row_tokens: int,
    tokens: int,
    share: bool,
    tell: Callable[[float], None],
) -> list[float]:
    """Return the log-probability (natural) of each reply after its prompt, summed over its tokens.

    `rows` and `tokens` are the most in one pass, padding included, `row_tokens` those of a prompt with its
    replies, if there are several. Without `share` each prompt is read with each reply. `tell` is
    called with the share that is read.
    """
    found = [0.0] * len(exchanges)
    made = list(_rows(exchanges, row_tokens if share else 0))
    done = 0
    for batch in batches([len(row) for row in made], rows=rows, tokens=tokens):
        members = [made[at] for at in batch]
        for row, values in zip(members, _read(reader, members), strict=True):
            for value, indexes in zip(values, row.indexes, strict=True):
                for at in indexes:
                    found[at] = value
            done += row.asked
        tell(done / len(exchanges))
    return found


def _rows(exchanges: Sequence[Exchange], row_tokens: int) -> Iterator[_Row]:
    """Yield each prompt with its replies, cut into several rows if they are longer than `row_tokens`."""
    asked: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for at, one in enumerate(exchanges):
        asked.setdefault(tuple(one.prompt), {}).setdefault(tuple(one.reply), []).append(at)
    for prompt, replies in asked.items():
        for some in chunks(list(replies), tokens=row_tokens - len(prompt)):
            yield _Row(prompt, some, [replies[tuple(reply)] for reply in some])


def _read(reader: Reader, rows: Sequence[_Row]) -> list[list[float]]:
    """Read one batch: replies begin in the same column in all rows, and logits are made from there on."""
    first = max(len(row.prompt) for row in rows)
    shape = (len(rows), first + max(len(row) - len(row.prompt) for row in rows))
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    part = np.full(shape, _PADDING, np.int64)
    for line, row in enumerate(rows):
        start = len(row.prompt)
        ids[line, :start], positions[line, :start], part[line, :start] = row.prompt, range(start), _PROMPT
        for number, (column, reply) in enumerate(_columns(row, first)):
            where = slice(column, column + len(reply))
            ids[line, where], positions[line, where] = reply, range(start, start + len(reply))
            part[line, where] = number
    kin = (part[:, None, :] == _PROMPT) | (part[:, None, :] == part[:, :, None])  # padding sees padding: no empty line
    seen = kin & np.tri(shape[1], dtype=bool)
    kept = np.array([*sorted({len(row.prompt) - 1 for row in rows}), *range(first, shape[1])])
    logits = reader.logits(
        torch.from_numpy(ids),
        mask=torch.from_numpy(seen[:, None]),
        positions=torch.from_numpy(positions),
        cache=None,
        keep=torch.from_numpy(kept).to(reader.model.device),
    )
    norms = logits.logsumexp(-1)
    values: list[list[float]] = []
    for line, row in enumerate(rows):
        values.append([])
        for column, reply in _columns(row, first):
            told = [len(row.prompt) - 1, *range(column, column + len(reply) - 1)]  # each token by the one before it
            values[-1].append(_sum(logits[line], norms[line], np.searchsorted(kept, told), reply))
    return values


def _columns(row: _Row, first: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the column in which each reply begins, and the reply."""
    column = first
    for reply in row.replies:
        yield column, reply
        column += len(reply)


def _sum(logits: torch.Tensor, norms: torch.Tensor, indexes: np.ndarray, reply: Sequence[int]) -> float:
    at = torch.from_numpy(indexes).to(logits.device)
    said = torch.tensor(reply, device=logits.device)
    return float((logits[at, said] - norms[at]).sum())

"""Candidates written token by token: each prompt read once, drafts that are done leaving the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from normloom.core.models.protocol import Sampling
from normloom.models.transformers.reading import Prefix, Reader, padded
from normloom.models.transformers.sampling import draw, uniforms


@dataclass
class Draft:
    """One candidate being written after `prompt` (all its token ids, the same for drafts of one `request`)."""

    request: int
    prompt: Sequence[int]
    seed: int
    tokens: list[int] = field(default_factory=list)
    finish: str = "length"


@dataclass(frozen=True)
class Stops:
    """What ends a draft: any of the tokens `ends`, any of the strings `texts` in what `decode` makes of it."""

    ends: frozenset[int]
    texts: Sequence[str]
    decode: Callable[[Sequence[int]], str]

    def reached(self, tokens: Sequence[int]) -> bool:
        """Say whether the last of `tokens` ends the draft."""
        if tokens[-1] in self.ends:
            return True
        # A stop string of n bytes spans at most n tokens, and may begin inside one more.
        window = max((len(text.encode()) for text in self.texts), default=0) + 1
        return bool(self.texts) and self._first(self.decode(tokens[-window:])) is not None

    def cut(self, text: str) -> str:
        """Return `text` up to the first stop string."""
        return text[: self._first(text)]

    def _first(self, text: str) -> int | None:
        return min((at for at in map(text.find, self.texts) if at >= 0), default=None)


@dataclass(frozen=True)
class Prompted:
    """A batch whose prompts have been read, one row a draft.

    `cache` holds keys and values, `mask` (rows, cached) says which of them are real, and `logits`
    (rows, vocabulary) are those of the first new token.
    """

    cache: Any
    mask: torch.Tensor
    logits: torch.Tensor


def read_prompts(reader: Reader, drafts: Sequence[Draft], head: Sequence[int]) -> Prompted:
    """Read the prompts of `drafts`, each once, after `head`, with which they all begin and which is kept."""
    prompts = {draft.request: draft.prompt for draft in drafts}
    prefix = reader.prefix(head) if head else Prefix()
    ids, mask, positions = padded([prompt[len(head) :] for prompt in prompts.values()])
    reader.tokens += int(mask.sum())
    mask = torch.cat([mask.new_ones(len(mask), prefix.length), mask], dim=1)
    cache = prefix.cache(len(prompts)) if head else DynamicCache(config=reader.model.config)
    logits = reader.logits(ids, mask=mask, positions=positions + prefix.length, cache=cache, keep=1, of=list(prompts))[
        :, 0
    ]
    order = {request: row for row, request in enumerate(prompts)}
    rows = torch.tensor([order[draft.request] for draft in drafts], device=logits.device)
    cache.batch_select_indices(rows)
    return Prompted(cache, mask.to(logits.device)[rows], logits[rows])


def write(
    reader: Reader,
    prompted: Prompted,
    drafts: Sequence[Draft],
    sampling: Sampling,
    stops: Stops,
    *,
    tell: Callable[[float], None],
) -> None:
    """Fill `tokens` and `finish` of each draft, until it is stopped or has `max_tokens`.

    `tell` gets the share of the batch that is written, at most: drafts may stop early.
    """
    cache, mask, logits = prompted.cache, prompted.mask, prompted.logits
    positions = mask.sum(1, keepdim=True)
    random = uniforms([draft.seed for draft in drafts], sampling.max_tokens).to(logits.device)
    penalty = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
    running = list(drafts)
    for step in range(sampling.max_tokens):
        if sampling.repetition_penalty != 1:
            logits = penalty(reader.plain(_seen(running)).to(logits.device), logits)
        tokens = draw(logits, random[:, step], temperature=sampling.temperature, top_p=sampling.top_p)
        keep = []
        for slot, (draft, token) in enumerate(zip(running, tokens.tolist(), strict=True)):
            draft.tokens.append(token)
            if stops.reached(draft.tokens):
                draft.finish = "stop"
            else:
                keep.append(slot)
        tell((step + 1) / sampling.max_tokens)
        if not keep or step + 1 == sampling.max_tokens:
            return
        if len(keep) < len(running):
            rows = torch.tensor(keep, device=logits.device)
            cache.batch_select_indices(rows)
            mask, positions, tokens, random = mask[rows], positions[rows], tokens[rows], random[rows]
            running = [running[slot] for slot in keep]
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
        of = [draft.request for draft in running]
        logits = reader.logits(tokens[:, None], mask=mask, positions=positions, cache=cache, keep=1, of=of)[:, 0]
        positions = positions + 1


def _seen(drafts: Sequence[Draft]) -> torch.Tensor:
    """Return each draft's prompt and tokens (drafts, longest), filled up with its last: seen twice counts once."""
    seen = [[*draft.prompt, *draft.tokens] for draft in drafts]
    width = max(map(len, seen))
    return torch.tensor([ids + ids[-1:] * (width - len(ids)) for ids in seen])

"""How likely a causal model is to give a reply that is known: one forward pass over prompt and reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from normloom.models.prompts import Exchange
from normloom.models.transformers.packing import batches


def reply_log_probs(
    model: Any, exchanges: Sequence[Exchange], *, rows: int, tokens: int, tell: Callable[[float], None]
) -> list[float]:
    """Return the log-probability (natural) of each reply after its prompt, summed over its tokens.

    `rows` and `tokens` are the most in one pass, padding included; `tell` is told the share that is read.
    """
    found = [0.0] * len(exchanges)
    done = 0
    for batch in batches([len(one.prompt) + len(one.reply) for one in exchanges], rows=rows, tokens=tokens):
        members = [exchanges[at] for at in batch]
        for at, value in zip(batch, _read(model, members), strict=True):
            found[at] = value
        done += len(batch)
        tell(done / len(exchanges))
    return found


def _read(model: Any, exchanges: Sequence[Exchange]) -> list[float]:
    """Read one batch, padded on the right; logits are made from where the first reply begins."""
    device = next(model.parameters()).device
    sequences = [torch.tensor([*one.prompt, *one.reply]) for one in exchanges]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in sequences], batch_first=True)
    first = min(len(one.prompt) for one in exchanges) - 1  # the token before a reply tells its first one
    kept = torch.arange(first, ids.shape[1] - 1, device=device)
    logits = model(ids.to(device), attention_mask=mask.to(device), use_cache=False, logits_to_keep=kept).logits.float()
    said = ids[:, first + 1 :].to(device)
    log_probs = logits.gather(-1, said.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    places = torch.arange(first + 1, ids.shape[1], device=device)
    starts = torch.tensor([len(one.prompt) for one in exchanges], device=device).unsqueeze(1)
    ends = torch.tensor([len(one) for one in sequences], device=device).unsqueeze(1)
    values: list[float] = log_probs.masked_fill((places < starts) | (places >= ends), 0.0).sum(-1).tolist()
    return values

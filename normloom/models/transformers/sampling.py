"""Drawing the next tokens so that a row's draw depends on its own seed alone, not on its neighbours."""

from __future__ import annotations

import numpy as np
import torch

_SHORTLIST = 256  # tokens in which the nucleus is looked for before the whole vocabulary is sorted


def uniforms(seeds: list[int], steps: int) -> torch.Tensor:
    """Return one uniform number in [0, 1) for each seed and step, float64 (seeds, steps)."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(steps) for seed in seeds]))


def draw(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Return one token for each row of `logits` (rows, vocabulary; float32), by inverse CDF at `uniform` (rows).

    The candidates are the smallest set of likeliest tokens that holds `top_p` of the probability, as in
    transformers' nucleus sampling; `temperature` 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    if top_p >= 1:
        return _invert(probabilities, uniform)
    size = min(_SHORTLIST, probabilities.shape[1])
    top, tokens = probabilities.topk(size)
    if bool((top.sum(-1) < top_p).any()):  # a flat distribution
        top, tokens = probabilities.sort(descending=True)
    outside = top.cumsum(-1) - top >= top_p
    nucleus = top.masked_fill(outside, 0)
    # In the vocabulary's order: there a rounding difference moves a boundary, but swaps no two equal tokens.
    tokens, order = tokens.sort(-1)
    chosen = _invert(nucleus.gather(-1, order), uniform)
    return tokens.gather(-1, chosen[:, None])[:, 0]


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return for each row the first index whose cumulative weight passes `uniform` of the row's total."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    target = uniform[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return index.clamp_(max=weights.shape[1] - 1)

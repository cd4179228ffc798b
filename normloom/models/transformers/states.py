"""The mean of a causal model's last layer over the tokens of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from normloom.models.transformers.packing import batches


def mean_states(model: Any, ids: Sequence[Sequence[int]], *, rows: int, tokens: int) -> np.ndarray:
    """Return unit vectors, float32 (texts, width); a text without tokens has zeros.

    `model` is a causal model of transformers; `rows` and `tokens` are the most in one pass, padding included.
    """
    width = int(model.config.get_text_config().hidden_size)
    vectors = np.zeros((len(ids), width), np.float32)
    read = [at for at, one in enumerate(ids) if len(one)]
    for batch in batches([len(ids[at]) for at in read], rows=rows, tokens=tokens):
        members = [read[at] for at in batch]
        longest = max(len(ids[at]) for at in members)
        given = torch.zeros(len(members), longest, dtype=torch.int64)
        mask = torch.zeros_like(given)
        for line, at in enumerate(members):
            given[line, : len(ids[at])] = torch.tensor(ids[at])
            mask[line, : len(ids[at])] = 1
        given, mask = given.to(model.device), mask.to(model.device)
        states = model.base_model(input_ids=given, attention_mask=mask).last_hidden_state.float()
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[members] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return vectors

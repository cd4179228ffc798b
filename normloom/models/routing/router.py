"""The router: a small mixture of experts that reads a state and says how likely each adapter is the one to ask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from normloom.core.errors import ModelError

FILE = "router.safetensors"
_EXPERTS = "experts"  # their names in the file's metadata, in order


class Router(nn.Module):
    """Experts, one for each adapter, whose judgements a gate weighs; both are trained together.

    The gate is the softmax of the state's inner products with a reference vector for each adapter, which begins as its
    task vector. Expert k judges, by a layer of its own, the state moved by the task vector k: how likely each adapter
    is. What comes out is the mean of their judgements by the gate's weights.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    shifts: torch.Tensor

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor, shifts: torch.Tensor, *, hidden: int) -> None:
        """Return an untrained router: mean and spread (width,) of the states that it learns from.

        `shifts` are the task vectors (adapters, width).
        """
        super().__init__()
        adapters, width = shifts.shape
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.register_buffer("shifts", shifts)
        self.reference = nn.Parameter(nn.functional.normalize(shifts / spread, dim=1))
        self.first = nn.Parameter(torch.randn(adapters, width, hidden) / width**0.5)
        self.first_bias = nn.Parameter(torch.zeros(adapters, 1, hidden))
        self.second = nn.Parameter(torch.randn(adapters, hidden, adapters) / hidden**0.5)
        self.second_bias = nn.Parameter(torch.zeros(adapters, 1, adapters))

    def forward(self, states: torch.Tensor, *, dropout: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each adapter and the gate's log-weights, (states, adapters) each."""
        gate = (self.standard(states) @ self.reference.T).log_softmax(1)
        moved = self.standard(states[None] + self.shifts[:, None])  # (adapters, states, width)
        inner = nn.functional.dropout(torch.relu(moved @ self.first + self.first_bias), dropout, self.training)
        judged = (inner @ self.second + self.second_bias).log_softmax(2)
        return torch.logsumexp(judged + gate.T[:, :, None], dim=0), gate

    def standard(self, states: torch.Tensor) -> torch.Tensor:
        """Return states in standard units."""
        return (states - self.mean) / self.spread


def save_router(router: Router, names: Sequence[str], folder: Path) -> None:
    """Write a router with the names of its adapters, in the order of what it returns."""
    state = {name: value.detach().cpu().contiguous() for name, value in router.state_dict().items()}
    save_file(state, folder / FILE, metadata={_EXPERTS: json.dumps(list(names))})


def load_router(folder: Path) -> tuple[Router, tuple[str, ...]]:
    """Return a trained router and the names of its adapters; raises ModelError for files that hold none."""
    try:
        with safe_open(folder / FILE, framework="pt") as stored:
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
            names = tuple(json.loads(stored.metadata()[_EXPERTS]))
        router = Router(state["mean"], state["spread"], state["shifts"], hidden=state["first"].shape[2])
        router.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder / FILE} holds no router: {error!r}") from error
    return router.eval(), names


@torch.inference_mode()
def judged(router: Router, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probabilities of the adapters and the gate's weights, float64 (states, adapters) each."""
    told, gate = router(torch.from_numpy(np.asarray(states, dtype=np.float32)))
    return told.double().numpy(), gate.double().exp().numpy()

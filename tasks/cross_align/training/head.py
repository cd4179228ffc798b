"""A linear head with a low-rank update, W + B A, over frozen vectors; and the losses that it learns from."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


class AdaptedHead(nn.Module):
    """A linear head whose weights W and b stay, and a rank-r update B A that is learned (as in LoRA, arXiv 2106.09685).

    B begins at zero: before training the update changes nothing.
    """

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, *, rank: int, scale: float) -> None:
        super().__init__()
        classes, width = weights.shape
        self.scale = scale
        self.register_buffer("weights", weights)
        self.register_buffer("bias", bias)
        self.down = nn.Parameter(torch.randn(rank, width) / width**0.5)  # A
        self.up = nn.Parameter(torch.zeros(classes, rank))  # B

    def plain(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the logits without the update, (rows, classes)."""
        weights, bias = self.get_buffer("weights"), self.get_buffer("bias")
        return vectors @ weights.T + bias

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the logits with the update, (rows, classes)."""
        logits: torch.Tensor = self.plain(vectors) + self.scale * (vectors @ self.down.T) @ self.up.T
        return logits

    def narrow(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return A x as unit vectors (rows, rank): the space in which classes are drawn apart."""
        narrow: torch.Tensor = nn.functional.normalize(vectors @ self.down.T, dim=1)
        return narrow


def supervised_contrast(unit: torch.Tensor, labels: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Return the supervised contrastive loss of unit vectors (Khosla et al. 2020, arXiv 2004.11362, equation 2).

    Rows without another row of their class count for nothing; 0 if all are such.
    """
    logits = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = logits.masked_fill(itself, float("-inf"))
    chances = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    alike = (labels[:, None] == labels[None]) & ~itself
    counts = alike.sum(dim=1)
    some = counts > 0
    if not bool(some.any()):
        return unit.sum() * 0
    means = chances.masked_fill(~alike, 0.0).sum(dim=1)[some] / counts[some]
    return -means.mean()


def digest(module: nn.Module) -> str:
    """Return a digest of all weights of a module, by name."""
    told = hashlib.sha256()
    for name, weights in sorted(module.state_dict().items()):
        told.update(name.encode())
        told.update(weights.detach().contiguous().numpy().tobytes())
    return told.hexdigest()


def probabilities(logits: torch.Tensor) -> Any:
    """Return the softmax of logits as an array (rows, classes), float64."""
    return torch.softmax(logits.double(), dim=1).numpy()

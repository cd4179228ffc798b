"""The networks: modalities projected into one space and read by one block, or laid side by side (arXiv 2602.01101)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from normloom.schemas.media.modality_tables import CONCAT, IMAGE, IMAGE_ONLY, SHARED, TEXT, TEXT_ONLY

if TYPE_CHECKING:
    import numpy.typing as npt

Vectors = Mapping[str, torch.Tensor]  # modality -> (rows, width)
Present = Mapping[str, torch.Tensor]  # modality -> (rows,) bool
_SCALE = 8.0  # of unit vectors, whose logits would all be near 0
NETWORKS = {SHARED: (TEXT, IMAGE), CONCAT: (TEXT, IMAGE), TEXT_ONLY: (TEXT,), IMAGE_ONLY: (IMAGE,)}


class Standard(nn.Module):
    """Shifts and scales vectors to the mean 0 and the spread 1 that the training items have."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", vectors.mean(0))
        self.register_buffer("spread", vectors.std(0, correction=0).clamp_min(1e-6))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors in standard units."""
        standard: torch.Tensor = (vectors - self.mean) / self.spread
        return standard


def block(width: int, dropout: float) -> nn.Sequential:
    """Return two layers of linear, batch normalisation, ReLU, dropout."""
    layers = (
        layer
        for _ in range(2)
        for layer in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
    )
    return nn.Sequential(*layers)


class Projected(nn.Module):
    """Each modality has a linear layer into one space; all pass through one block and one head.

    With one modality this is the classifier of that modality alone.
    """

    def __init__(self, training: Vectors, *, width: int, dropout: float) -> None:
        super().__init__()
        self.standards = nn.ModuleDict({name: Standard(vectors) for name, vectors in training.items()})
        self.projections = nn.ModuleDict({name: nn.Linear(v.shape[1], width) for name, v in training.items()})
        self.block = block(width, dropout)
        self.head = nn.Linear(width, 1)

    def states(self, vectors: Vectors, present: Present) -> dict[str, torch.Tensor]:
        """Return the unit vectors in the shared space of the rows that have each modality, in one pass of the block."""
        rows = {name: self.standards[name](vectors[name][present[name]]) for name in self.projections}
        together = self.block(torch.cat([self.projections[name](rows[name]) for name in rows]))
        unit = nn.functional.normalize(together, dim=1)
        return dict(zip(rows, torch.split(unit, [len(one) for one in rows.values()]), strict=True))

    def loss(self, vectors: Vectors, present: Present, labels: torch.Tensor, *, alignment: float) -> torch.Tensor:
        """Return the cross-entropy summed over the modalities, and the distance of the two where both are there."""
        states = self.states(vectors, present)
        entropy = [
            nn.functional.binary_cross_entropy_with_logits(self._logits(state), labels[present[name]])
            for name, state in states.items()
            if len(state)
        ]
        total = torch.stack(entropy).sum()
        if len(states) > 1:
            (one, first), (other, second) = states.items()
            both = present[one] & present[other]
            apart = (first[both[present[one]]] - second[both[present[other]]]).square().sum(1)
            total = total + alignment * apart.mean() if len(apart) else total
        return total

    def forward(self, vectors: Vectors, present: Present) -> torch.Tensor:
        """Return the mean logit of the modalities that each row has; NaN for a row that has none."""
        rows = len(next(iter(present.values())))
        total, count = torch.zeros(rows), torch.zeros(rows)
        for name, state in self.states(vectors, present).items():
            total[present[name]] += self._logits(state)
            count[present[name]] += 1
        return total / count

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(states * _SCALE).squeeze(1)
        return logits


class Concatenated(nn.Module):
    """Both modalities side by side, zeros for one that is absent."""

    def __init__(self, training: Vectors, *, width: int, dropout: float) -> None:
        super().__init__()
        self.standards = nn.ModuleDict({name: Standard(vectors) for name, vectors in training.items()})
        self.project = nn.Linear(sum(vectors.shape[1] for vectors in training.values()), width)
        self.block = block(width, dropout)
        self.head = nn.Linear(width, 1)

    def loss(self, vectors: Vectors, present: Present, labels: torch.Tensor, *, alignment: float) -> torch.Tensor:  # noqa: ARG002  # one protocol
        """Return the cross-entropy."""
        return nn.functional.binary_cross_entropy_with_logits(self.forward(vectors, present), labels)

    def forward(self, vectors: Vectors, present: Present) -> torch.Tensor:
        """Return the logit of each row."""
        parts = []
        for name, standard in self.standards.items():
            rows = standard(vectors[name])
            parts.append(torch.where(present[name][:, None], rows, torch.zeros_like(rows)))
        logits: torch.Tensor = self.head(self.block(self.project(torch.cat(parts, dim=1)))).squeeze(1)
        return logits


Network = Projected | Concatenated


def new_network(name: str, training: Vectors, *, width: int, dropout: float) -> Network:
    """Return an untrained network by its name; `training` are the vectors that it will learn from."""
    kind = Concatenated if name == CONCAT else Projected
    return kind({one: training[one] for one in NETWORKS[name]}, width=width, dropout=dropout)


def digest(module: nn.Module) -> str:
    """Return a digest of all weights and statistics of a module, by name."""
    told = hashlib.sha256()
    for name, weights in sorted(module.state_dict().items()):
        told.update(name.encode())
        told.update(weights.detach().contiguous().numpy().tobytes())
    return told.hexdigest()


def passed(network: Network, modality: str) -> str | None:
    """Return a digest of the weights that a modality alone passes through after its projection, None if it is not read.

    The modules are those that run when nothing else is there, whatever the network says of itself.
    """
    if modality not in network.standards:
        return None
    ran: list[nn.Module] = []
    leaves = [one for one in network.modules() if next(one.parameters(recurse=False), None) is not None]
    hooks = [leaf.register_forward_hook(lambda module, *_: ran.append(module)) for leaf in leaves]
    widths = {name: int(network.get_buffer(f"standards.{name}.mean").shape[0]) for name in network.standards}
    training = network.training
    with torch.no_grad():
        network.eval()(
            {name: torch.zeros(1, width) for name, width in widths.items()},
            {name: torch.tensor([name == modality]) for name in widths},
        )
    network.train(training)
    for hook in hooks:
        hook.remove()
    projections = set(network.projections.values()) if isinstance(network, Projected) else {network.project}
    return digest(nn.ModuleList(module for module in ran if module not in projections))


def tensors(vectors: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Return arrays as tensors."""
    return {name: torch.from_numpy(array) for name, array in vectors.items()}

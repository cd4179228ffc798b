"""The networks: views projected into one space, refined by GPT-style blocks, and classified (arXiv 2601.17530)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from normloom.tasks.missing_modality.network import Standard

if TYPE_CHECKING:
    from normloom.core.models.protocol import ModelSpec

Vectors = Mapping[str, torch.Tensor]  # view -> (rows, width)
_HEADS = 8


class Aligner(nn.Module):
    """Each view has two layers into one space; what leaves them are unit vectors."""

    def __init__(self, training: Vectors, *, width: int, dropout: float) -> None:
        super().__init__()
        self.standards = nn.ModuleDict({view: Standard(vectors) for view, vectors in training.items()})
        self.projections = nn.ModuleDict(
            {
                view: nn.Sequential(
                    nn.Linear(vectors.shape[1], width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
                )
                for view, vectors in training.items()
            }
        )

    def forward(self, vectors: Vectors) -> torch.Tensor:
        """Return the aligned views, (rows, views, width)."""
        found = [projection(self.standards[view](vectors[view])) for view, projection in self.projections.items()]
        return nn.functional.normalize(torch.stack(found, dim=1), dim=2)


class Anchors(NamedTuple):
    """Anchors and what is compared with them, as places in (items x views); padded with 0 where `there` is false."""

    anchor: torch.Tensor  # (anchors,)
    others: torch.Tensor  # (anchors, most)
    positive: torch.Tensor  # (anchors, most) bool
    there: torch.Tensor  # (anchors, most) bool

    def rows(self, some: torch.Tensor) -> Anchors:
        """Return some of the anchors."""
        return Anchors(*(one[some] for one in self))


def cosines(aligned: torch.Tensor, anchors: Anchors) -> torch.Tensor:
    """Return the cosine of each anchor and other, (anchors, most); `aligned` is (items x views, width)."""
    found: torch.Tensor = torch.einsum("aw,amw->am", aligned[anchors.anchor], aligned[anchors.others])
    return found


def contrastive_loss(alike: torch.Tensor, anchors: Anchors, *, temperature: float) -> torch.Tensor:
    """Return the supervised contrastive loss of cosines, the mean over the anchors.

    `-log(sum over positives exp(cos / t) / sum over others exp(cos / t))` (METHODS-2, after arXiv 2004.11362).
    """
    scaled = (alike / temperature).masked_fill(~anchors.there, -torch.inf)
    together = scaled.masked_fill(~anchors.positive, -torch.inf)
    return (scaled.logsumexp(1) - together.logsumexp(1)).mean()


class Shape(NamedTuple):
    """What a scorer is made of."""

    width: int
    layers: int  # of the refiner; 0 for none
    dropout: float
    fuse: str  # concat or mean


class Scorer(nn.Module):
    """Aligned views, GPT-style blocks over them as one sequence, and a linear layer: the logit of real.

    The blocks have random weights, or with `blocks` those of a model; their states are of its width.
    """

    def __init__(self, aligner: Aligner, shape: Shape, blocks: nn.Module | None = None) -> None:
        super().__init__()
        self.aligner = aligner
        self.fuse = shape.fuse
        self.blocks = blocks if shape.layers else None
        inner = shape.width if self.blocks is None else int(self.blocks.config.n_embd)  # type: ignore[union-attr, arg-type]  # of transformers
        self.bridge = nn.Identity() if inner == shape.width else nn.Linear(shape.width, inner)
        views = len(aligner.projections)
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(inner * (views if shape.fuse == "concat" else 1), 1)

    def refine(self, aligned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what enters the refiner and what leaves it, (rows, views, width); the same without one."""
        entering = self.bridge(aligned)
        if self.blocks is None:
            return entering, entering
        leaving: torch.Tensor = self.blocks(inputs_embeds=entering, use_cache=False).last_hidden_state
        return entering, leaving

    def classify(self, refined: torch.Tensor) -> torch.Tensor:
        """Return the logit of real of each row."""
        fused = refined.flatten(1) if self.fuse == "concat" else refined.mean(1)
        logits: torch.Tensor = self.head(self.dropout(fused)).squeeze(1)
        return logits

    def forward(self, vectors: Vectors) -> torch.Tensor:
        """Return the logit of real of each row."""
        return self.classify(self.refine(self.aligner(vectors))[1])


def new_blocks(shape: Shape, views: int, spec: ModelSpec | None = None, *, empty: bool = False) -> nn.Module | None:
    """Return the blocks of a refiner, None if it has no layers.

    With `spec` they are the first layers of that GPT-2, `empty` with its shape and not its weights. Raises ModelError.
    """
    if not shape.layers:
        return None
    from transformers import GPT2Config, GPT2Model

    if spec is None:
        heads = max(one for one in range(1, _HEADS + 1) if shape.width % one == 0)
        return _plain(
            GPT2Model(
                GPT2Config(
                    vocab_size=1,
                    n_positions=views,
                    n_embd=shape.width,
                    n_layer=shape.layers,
                    n_head=heads,
                    resid_pdrop=shape.dropout,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    bos_token_id=None,
                    eos_token_id=None,
                )
            ),
            shape.layers,
        )
    if empty:
        from normloom.models.files.locate import locate

        return _plain(GPT2Model(GPT2Config.from_pretrained(locate(spec), n_layer=shape.layers)), shape.layers)
    from normloom.models.loading import load

    return _plain(load(GPT2Model, spec.model_copy(update={"dtype": "float32"}), threads=None), shape.layers)


def _plain(blocks: Any, layers: int) -> nn.Module:
    """Return GPT-2 without its words, which nothing here reads, and its first layers only."""
    blocks.wte = nn.Identity()
    blocks.h = blocks.h[:layers]
    module: nn.Module = blocks
    return module


def tensors(vectors: Mapping[str, Any], rows: Any, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """Return the vectors of some items as tensors."""
    return {view: torch.from_numpy(matrix[rows]).to(device) for view, matrix in vectors.items()}


def anchors_of(listed: Sequence[tuple[int, list[int], list[bool]]]) -> Anchors:
    """Return anchors from their places, those of the others, and whether these are positive."""
    most = max(len(others) for _, others, _ in listed)

    def padded(values: list[Any], empty: Any) -> list[Any]:
        return values + [empty] * (most - len(values))

    return Anchors(
        torch.tensor([anchor for anchor, _, _ in listed]),
        torch.tensor([padded(others, 0) for _, others, _ in listed]),
        torch.tensor([padded(positive, False) for _, _, positive in listed]),  # noqa: FBT003  # what is padded with
        torch.tensor([padded([True] * len(others), False) for _, others, _ in listed]),  # noqa: FBT003  # a value to fill with
    )

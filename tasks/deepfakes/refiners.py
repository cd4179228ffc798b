"""The refiner, trained together with the classifier, and its ablations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas.media import deepfake_tables
from normloom.schemas.media.deepfake_tables import REAL
from normloom.steps.step import step
from normloom.tasks.deepfakes.aligners import ALIGNER, FOLDER, Space, fits_output, told, view_matrices
from normloom.tasks.deepfakes.held_out import HeldOut, held_out, parts
from normloom.tasks.media.fitted import Curve, file_name, fitted, keep_files, one_thread

if TYPE_CHECKING:
    from normloom.tasks.deepfakes.networks import Scorer

FULL, NO_CONTRAST, NO_REFINER, MEAN_FUSION = "conllm", "no_contrast", "no_refiner", "mean_fusion"
VARIANTS = (FULL, NO_CONTRAST, NO_REFINER, MEAN_FUSION)


class Refining(Space):
    """How refiner and classifier are trained; all variants alike."""

    layers: int = Field(2, ge=1, description="GPT-style blocks")
    epochs: int = Field(10, ge=1, description="passes over the training items")
    batch: int = Field(64, ge=1, description="items in a step")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of Adam")
    seed: int = Field(42, description="seed of weights, order and dropout")


@step(
    makes=deepfake_tables.FITS,
    files=FOLDER,
    needs=Needs(threads=1),
    libraries=("torch", "transformers", "safetensors", "numpy"),
    fan_out=free("one row for each variant, held-out pair and epoch"),
)
def refiners(
    rows: pl.DataFrame,
    args: Refining,
    *vectors: pl.DataFrame,
    views: tuple[str, ...],
    aligned: ProductFiles,
    refiner: ModelSpec | None = None,
    run: Run,
) -> Output:
    """Train refiner and classifier of each variant for each held-out pair.

    `aligned` are the aligners, which stay as they are; `no_contrast` begins with projections of random weights and
    trains them too. `refiner` is a GPT-2 whose first layers the blocks start from, random weights without it. The loss
    is the cross-entropy with both classes of equal weight. Raises StageError, and ModelError for a refiner that cannot
    be loaded.
    """
    matrices = view_matrices(rows, views, vectors)
    jobs = [(variant, held) for held in held_out(rows) for variant in VARIANTS]
    curves: Curve = []
    with one_thread():
        for done, (variant, held) in enumerate(jobs, start=1):
            train = partial(_trained, rows, matrices, args, variant, held, aligned, refiner)
            curve = fitted(run.scratch / file_name(variant, *held), train)
            curves += curve
            run.progress(done, len(jobs), loss=curve[-1]["loss"])
    keep_files(run)
    return fits_output(curves)


def new_scorer(
    variant: str, own: Any, args: Refining, refiner: ModelSpec | None = None, *, empty: bool = False
) -> Scorer:
    """Return the untrained network of a variant; `own` are the vectors that it learns from, by view."""
    from normloom.tasks.deepfakes.networks import Aligner, Scorer, Shape, new_blocks

    shape = Shape(
        width=args.width,
        layers=0 if variant == NO_REFINER else args.layers,
        dropout=args.dropout,
        fuse="mean" if variant == MEAN_FUSION else "concat",
    )
    aligner = Aligner(own, width=args.width, dropout=args.dropout)
    return Scorer(aligner, shape, new_blocks(shape, len(own), refiner, empty=empty))


def _trained(
    rows: pl.DataFrame,
    matrices: dict[str, Any],
    args: Refining,
    variant: str,
    held: HeldOut,
    aligned: ProductFiles,
    refiner: ModelSpec | None,
) -> tuple[Scorer, Curve]:
    import torch
    from safetensors.torch import load_file
    from torch import nn

    from normloom.tasks.deepfakes.networks import tensors
    from normloom.tasks.missing_modality.network import digest

    learn = parts(rows, held).learn
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = tensors(matrices, learn, device)
    labels = torch.from_numpy((rows["label"] == REAL).to_numpy()[learn]).float().to(device)
    balance = (1 - labels).sum() / labels.sum()
    frozen = variant != NO_CONTRAST
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed + held.fold)
        network = new_scorer(variant, own, args, refiner).to(device)
        if frozen:
            network.aligner.load_state_dict(load_file(aligned.path / file_name(ALIGNER, *held)))
            network.aligner.requires_grad_(requires_grad=False)
        curve = [told(variant, held, 0, None, digest(network), moved=_moved(network, own))]
        optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], args.learning_rate)
        for epoch in range(1, args.epochs + 1):
            network.train()
            if frozen:
                network.aligner.eval()
            losses = []
            for some in torch.split(torch.randperm(len(labels)), args.batch):
                logits = network({view: array[some.to(device)] for view, array in own.items()})
                loss = nn.functional.binary_cross_entropy_with_logits(
                    logits, labels[some.to(device)], pos_weight=balance
                )
                if not torch.isfinite(loss):
                    raise StageError(f"the loss is {loss.item()}: lower refine.learning_rate")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                optimizer.step()
                losses.append(loss.item())
            curve.append(
                told(variant, held, epoch, sum(losses) / len(losses), digest(network), moved=_moved(network, own))
            )
    return network.eval(), curve


def _moved(network: Scorer, vectors: Any) -> float:
    import torch

    with torch.inference_mode():
        entering, leaving = network.eval().refine(network.aligner(vectors))
    return float((entering - leaving).norm(dim=2).mean())

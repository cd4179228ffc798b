"""Training: every network on every fold; what a killed run has finished is not trained again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import modality_tables
from normloom.schemas.media.modality_tables import CONCAT, IMAGE, IMAGE_ONLY, SHARED, TEXT, TEXT_ONLY
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.media.fitted import file_name, fitted, keep_files, matrix_of, one_thread
from normloom.tasks.missing_modality.items import position

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.tasks.missing_modality.network import Network, Vectors

NETWORKS = (SHARED, CONCAT, TEXT_ONLY, IMAGE_ONLY)
FOLDER = "fits"


class Fitting(Args):
    """How the networks are trained; all of them alike."""

    width: int = Field(256, ge=2, description="width of the shared space")
    epochs: int = Field(20, ge=1, description="passes over the training items")
    batch: int = Field(64, ge=2, description="items in a step")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout in the block")
    alignment: float = Field(0.1, ge=0, description="weight of the distance between the modalities of an item")
    text_missing: float = Field(0.0, ge=0, lt=1, description="share of the training items whose text is hidden")
    image_missing: float = Field(0.0, ge=0, lt=1, description="share of the training items whose image is hidden")
    seed: int = Field(42, description="seed of weights, order and dropout")


@step(
    makes=modality_tables.FITS,
    files=FOLDER,
    needs=Needs(threads=1),
    libraries=("torch", "safetensors", "numpy"),
    fan_out=free("one row for each network, fold and epoch"),
)
def fits(rows: pl.DataFrame, args: Fitting, text: pl.DataFrame, image: pl.DataFrame, *, run: Run) -> Output:
    """Train every network on every fold; `text` and `image` are the vectors of the items.

    A fold is the test set of its networks, the next one the development set; they learn from the others. Raises
    StageError for training items of one class, and for a loss that is not finite.
    """
    vectors = arrays(rows, text, image)
    folds = int(rows["fold"].max() or 0) + 1  # type: ignore[arg-type]  # an integer
    jobs = [(name, fold) for fold in range(folds) for name in NETWORKS]
    curves = []
    with one_thread():
        for done, (name, fold) in enumerate(jobs, start=1):
            train = partial(_trained, rows, vectors, args, name, fold, folds)
            curve = fitted(run.scratch / file_name(name, fold), train)
            curves += curve
            run.progress(done, len(jobs), loss=curve[-1]["loss"])
    keep_files(run)
    made = pl.DataFrame(curves, schema=modality_tables.FITS.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str("network", "fold", "epoch", separator=":")
    )
    return Output(rows=made, attempts=made.height)


def arrays(rows: pl.DataFrame, text: pl.DataFrame, image: pl.DataFrame) -> dict[str, npt.NDArray[np.float32]]:
    """Return the vectors of the items in their order, by modality, (items, width) float32.

    Raises StageError for an item without one, for vectors of unequal width, and if all are the same (C12).
    """
    return {name: matrix_of(rows, table, name) for name, table in ((TEXT, text), (IMAGE, image))}


def parts(rows: pl.DataFrame, fold: int, folds: int) -> tuple[Any, Any, Any]:
    """Return which items are trained on, develop and test a fold's networks, each (items,) bool."""
    held = rows["fold"].to_numpy()
    test, development = held == fold, held == (fold + 1) % folds
    return ~(test | development), development, test


def _trained(
    rows: pl.DataFrame, vectors: Mapping[str, Any], args: Fitting, name: str, fold: int, folds: int
) -> tuple[Network, list[dict[str, Any]]]:
    import torch

    from normloom.tasks.missing_modality.network import new_network, tensors

    learn, _, _ = parts(rows, fold, folds)
    labels = torch.from_numpy(rows["label"].to_numpy()[learn].astype("float32"))
    if labels.min() == labels.max():
        raise StageError(f"fold {fold}: its {len(labels)} training items are all of one class")
    own = {one: array[learn] for one, array in tensors(vectors).items()}
    seen = {
        one: torch.tensor([share <= _drawn(one, item) for item in rows["item_id"].to_numpy()[learn]])
        for one, share in ((TEXT, args.text_missing), (IMAGE, args.image_missing))
    }
    seen[IMAGE] |= ~seen[TEXT]  # an item without anything to see teaches nothing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed + fold)
        network = new_network(name, own, width=args.width, dropout=args.dropout)
        curve = [_told(network, name, fold, 0, None)]
        optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
        for epoch in range(1, args.epochs + 1):
            losses = _epoch(network, own, seen, labels, args, optimizer)
            curve.append(_told(network, name, fold, epoch, sum(losses) / len(losses)))
    return network.eval(), curve


def _epoch(
    network: Network, vectors: Vectors, present: Mapping[str, Any], labels: Any, args: Fitting, optimizer: Any
) -> list[float]:
    import torch

    network.train()
    losses = []
    order = torch.randperm(len(labels))
    pieces = list(torch.split(order, args.batch))
    if len(pieces) > 1 and len(pieces[-1]) < 2:  # noqa: PLR2004  # batch normalisation needs two
        pieces[-2:] = [torch.cat(pieces[-2:])]
    for rows in pieces:
        loss = network.loss(
            {one: array[rows] for one, array in vectors.items()},
            {one: seen[rows] for one, seen in present.items()},
            labels[rows],
            alignment=args.alignment,
        )
        if not torch.isfinite(loss):
            raise StageError(f"the loss is {loss.item()}: lower fits.learning_rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        losses.append(loss.item())
    return losses


def _told(network: Network, name: str, fold: int, epoch: int, loss: float | None) -> dict[str, Any]:
    from normloom.tasks.missing_modality.network import digest, passed

    return {
        "network": name,
        "fold": fold,
        "epoch": epoch,
        "loss": loss,
        "weights": digest(network),
        "text_block": passed(network, TEXT),
        "image_block": passed(network, IMAGE),
    }


def _drawn(modality: str, item: str) -> float:
    return int(position(f"training:{modality}:{item}"), 16) / 2**64

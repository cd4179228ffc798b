"""Train the adapter of each task and variant; what a killed run has finished is not trained again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.needs import Needs
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import meme_tables
from normloom.schemas.media.meme_tables import TRAIN, VALIDATION, VARIANTS
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.cross_align.training.hard_pairs import matrix
from normloom.tasks.cross_align.variants import vectors_of

if TYPE_CHECKING:
    from normloom.tasks.cross_align.training.head import AdaptedHead

FOLDER = "adapters"
_CLASSES, _SCALE = "classes", "scale"


class Adapting(Args):
    """How the adapter is trained, for all variants alike."""

    rank: int = Field(8, ge=1, description="rank of the update B A")
    scale: float = Field(2.0, gt=0, description="scale of the update (LoRA's alpha over rank)")
    alpha: float = Field(0.5, ge=0, description="weight of the contrastive loss next to the cross-entropy")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrastive loss")
    head: float = Field(10.0, gt=0, description="inverse strength of the regularisation of W (C of the regression)")
    epochs: int = Field(15, ge=1, description="passes over the hard pairs")
    batch: int = Field(64, ge=2, description="anchors in a step, each with its positive and its negative")
    learning_rate: float = Field(5e-3, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    seed: int = Field(42, description="seed of A and of the order of the pairs")


@dataclass(frozen=True)
class TrainedHead:
    """A head with its update, and its classes in the order of its logits."""

    head: AdaptedHead
    classes: tuple[str, ...]


@step(
    makes=meme_tables.ADAPTER_CURVE,
    files=FOLDER,
    needs=Needs(threads=1),
    libraries=("torch", "safetensors", "numpy", "scikit-learn"),
    fan_out=free("one row for each task, variant and epoch"),
)
def adapter(rows: pl.DataFrame, args: Adapting, vectors: pl.DataFrame, pairs: pl.DataFrame, *, run: Run) -> Output:
    """Train W + B A for each task and variant: W by logistic regression, then B A on hard pairs with W frozen.

    The loss is cross-entropy, classes weighted by their rarity, plus `alpha` times the contrastive loss of anchors,
    positives and negatives. The epoch with the best macro-F1 on the validation memes is kept, the last one without
    them; epoch 0 is the head alone. Raises StageError for a loss that is not finite.
    """
    jobs = [(task, variant) for task in rows["task"].unique(maintain_order=True) for variant in VARIANTS]
    curves: list[dict[str, Any]] = []
    for done, (task, variant) in enumerate(jobs, start=1):
        curves += _fitted(rows.filter(task=task), vectors, pairs, args, task, variant, run.scratch)
        run.progress(done, len(jobs), loss=curves[-1]["loss"])
    for path in run.scratch.glob("*.safetensors"):
        shutil.copyfile(path, run.files / path.name)
    made = pl.DataFrame(curves, schema=meme_tables.ADAPTER_CURVE.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.concat_str("task", "variant", "epoch", separator="\x1f")
    )
    return Output(rows=made, attempts=made.height)


def file_name(task: str, variant: str) -> str:
    """Return the name of an adapter's file: readable, and different for each task."""
    own = hashlib.blake2b(task.encode(), digest_size=3).hexdigest()
    return f"{re.sub(r'[^a-z0-9]+', '-', task.lower()).strip('-')}-{own}-{variant}.safetensors"


def load_adapter(folder: Path, task: str, variant: str) -> TrainedHead:
    """Return a trained adapter from the files of its product."""
    from safetensors import safe_open

    from normloom.tasks.cross_align.training.head import AdaptedHead

    with safe_open(folder / file_name(task, variant), framework="pt") as stored:
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
        told = stored.metadata()
    head = AdaptedHead(weights["weights"], weights["bias"], rank=len(weights["down"]), scale=float(told[_SCALE]))
    head.load_state_dict(weights)
    return TrainedHead(head.eval(), tuple(json.loads(told[_CLASSES])))


def _fitted(
    memes: pl.DataFrame,
    vectors: pl.DataFrame,
    pairs: pl.DataFrame,
    args: Adapting,
    task: str,
    variant: str,
    scratch: Path,
) -> list[dict[str, Any]]:
    """Train one adapter, unless that is done, and return its curve; its weights are in `scratch`."""
    from safetensors.torch import save_file

    weights = scratch / file_name(task, variant)
    told = weights.with_suffix(".json")
    if told.is_file() and weights.is_file():
        curve: list[dict[str, Any]] = json.loads(told.read_text(encoding="utf-8"))
        return curve
    trained, curve = _trained(memes, vectors, pairs.filter(task=task, variant=variant), args)
    state = {name: value.contiguous() for name, value in trained.head.state_dict().items()}
    save_file(state, weights, metadata={_CLASSES: json.dumps(trained.classes), _SCALE: str(args.scale)})
    curve = [{"task": task, "variant": variant, **row} for row in curve]
    draft = told.with_suffix(".tmp")
    draft.write_text(json.dumps(curve), encoding="utf-8")
    os.replace(draft, told)  # noqa: PTH105  # its being there says that the weights are whole
    return curve


def _trained(
    memes: pl.DataFrame, vectors: pl.DataFrame, pairs: pl.DataFrame, args: Adapting
) -> tuple[TrainedHead, list[dict[str, Any]]]:
    import torch

    from normloom.tasks.cross_align.training.head import AdaptedHead, digest

    variant = pairs["variant"][0]
    unit = torch.from_numpy(matrix(vectors_of(memes["meme_id"], vectors, variant)))
    learn = memes["split"].to_numpy() == TRAIN
    classes = tuple(memes.filter(learn)["label"].unique().sort())
    labels = torch.tensor([classes.index(label) if label in classes else -1 for label in memes["label"]])
    develop = (memes["split"].to_numpy() == VALIDATION) & (labels.numpy() >= 0)
    place = {meme: number for number, meme in enumerate(memes["meme_id"])}
    triples = torch.tensor(
        [[place[one] for one in row] for row in pairs.select("anchor", "positive", "negative").rows()]
    )
    rarity = len(triples) / (len(classes) * torch.bincount(labels[learn], minlength=len(classes)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        head = AdaptedHead(*_regression(unit[learn], labels[learn], args.head), rank=args.rank, scale=args.scale)
        optimizer = torch.optim.AdamW(head.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
        curve: list[dict[str, Any]] = []
        states = []
        for epoch in range(args.epochs + 1):
            loss, contrast = _epoch(head, unit, labels, triples, rarity, args, optimizer) if epoch else (None, None)
            curve.append(
                {
                    "epoch": epoch,
                    "loss": loss,
                    "contrast": contrast,
                    "validation_f1": _macro_f1(head, unit[develop], labels[develop]),
                    "weights": digest(head),
                }
            )
            states.append({name: value.clone() for name, value in head.state_dict().items()})
    chosen = _best([row["validation_f1"] for row in curve])
    head.load_state_dict(states[chosen])
    return TrainedHead(head.eval(), classes), [{**row, "chosen": row["epoch"] == chosen} for row in curve]


def _regression(unit: Any, labels: Any, strength: float) -> tuple[Any, Any]:
    """Return the weights (classes, width) and bias (classes,) of a logistic regression, classes weighted by rarity."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=1_000).fit(unit.numpy(), labels.numpy())
    weights, bias = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # of two classes: one logit, the other's is its opposite
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return torch.from_numpy(weights).float(), torch.from_numpy(bias).float()


def _epoch(
    head: AdaptedHead, unit: Any, labels: Any, triples: Any, rarity: Any, args: Adapting, optimizer: Any
) -> tuple[float, float]:
    """Return the mean loss and the mean of its contrastive part over the batches of an epoch."""
    import torch

    from normloom.tasks.cross_align.training.head import supervised_contrast

    losses, contrasts = [], []
    for batch in torch.split(torch.randperm(len(triples)), args.batch):
        rows = triples[batch].flatten().unique()  # a meme may be in several pairs, but is no positive of its own
        entropy = torch.nn.functional.cross_entropy(head(unit[rows]), labels[rows], weight=rarity)
        contrast = supervised_contrast(head.narrow(unit[rows]), labels[rows], temperature=args.temperature)
        loss = entropy + args.alpha * contrast
        if not torch.isfinite(loss):
            raise StageError(f"the loss is {loss.item()}: lower adapter.learning_rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        losses.append(loss.item())
        contrasts.append(contrast.item())
    return sum(losses) / len(losses), sum(contrasts) / len(contrasts)


def _macro_f1(head: AdaptedHead, unit: Any, labels: Any) -> float | None:
    import torch
    from sklearn.metrics import f1_score

    if not len(labels):
        return None
    with torch.inference_mode():
        said = head(unit).argmax(dim=1)
    return float(f1_score(labels.numpy(), said.numpy(), average="macro", zero_division=0))


def _best(scores: Sequence[float | None]) -> int:
    """Return the epoch with the best score (ties go to the earliest), or the last one without scores."""
    known = [score for score in scores if score is not None]
    return scores.index(max(known)) if known else len(scores) - 1

"""The contrastive stage: for each held-out pair a network that brings together what belongs together."""

from __future__ import annotations

from collections.abc import Iterable
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
from normloom.schemas.media import deepfake_tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.deepfakes.held_out import HeldOut, held_out, parts
from normloom.tasks.media.fitted import Curve, file_name, fitted, keep_files, matrix_of, one_thread

if TYPE_CHECKING:
    from normloom.tasks.deepfakes.networks import Aligner, Anchors

ALIGNER = "aligner"
FOLDER = "weights"


class Space(Args):
    """The space that all views are projected into."""

    width: int = Field(64, ge=2, description="width of the space, and of a refiner with random weights")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout in projections, refiner and classifier")


class Aligning(Space):
    """How aligners are trained."""

    epochs: int = Field(20, ge=1, description="passes over the anchors")
    batch: int = Field(64, ge=1, description="anchors in a step")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="weight decay of AdamW")
    temperature: float = Field(0.5, gt=0, description="temperature of the contrastive loss")
    seed: int = Field(42, description="seed of weights, order and dropout")


@step(
    makes=deepfake_tables.FITS,
    files=FOLDER,
    needs=Needs(threads=1),
    libraries=("torch", "safetensors", "numpy"),
    fan_out=free("one row for each held-out pair and epoch"),
)
def aligners(
    rows: pl.DataFrame,
    args: Aligning,
    pairs: pl.DataFrame,
    *vectors: pl.DataFrame,
    views: tuple[str, ...],
    run: Run,
) -> Output:
    """Train an aligner for each generator and fold of speakers that are held out; `vectors` are those of `views`.

    The loss is that of METHODS-2: the positives of an anchor against all that it is compared with. Raises StageError
    if nothing can be held out, and for a loss that is not finite.
    """
    matrices = view_matrices(rows, views, vectors)
    jobs = held_out(rows)
    curves: Curve = []
    with one_thread():
        for done, held in enumerate(jobs, start=1):
            train = partial(_trained, rows, matrices, pairs, args, held)
            curve = fitted(run.scratch / file_name(ALIGNER, *held), train)
            curves += curve
            run.progress(done, len(jobs), loss=curve[-1]["loss"])
    keep_files(run)
    return fits_output(curves)


def view_matrices(rows: pl.DataFrame, views: tuple[str, ...], vectors: Iterable[pl.DataFrame]) -> dict[str, Any]:
    """Return the vectors of the items by view, (items, width) float32 each; raises StageError."""
    return {view: matrix_of(rows, table, view) for view, table in zip(views, vectors, strict=True)}


def fits_output(curves: Curve) -> Output:
    """Return what a training stage makes, from its curves."""
    made = pl.DataFrame(curves, schema=deepfake_tables.FITS.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS),
        content=pl.concat_str("network", "generator", "fold", "epoch", separator="\x1f"),
    )
    return Output(rows=made, attempts=made.height)


def told(network: str, held: HeldOut, epoch: int, loss: float | None, weights: str, **also: float) -> dict[str, Any]:
    """Return an epoch as a row of a table under `deepfake_tables.FITS`."""
    row = {"network": network, "generator": held.generator, "fold": held.fold, "epoch": epoch, "loss": loss}
    return {**row, "weights": weights, **dict.fromkeys(("positive", "negative", "moved")), **also}


def _trained(
    rows: pl.DataFrame, matrices: dict[str, Any], pairs: pl.DataFrame, args: Aligning, held: HeldOut
) -> tuple[Aligner, Curve]:
    import torch

    from normloom.tasks.deepfakes.networks import Aligner, contrastive_loss, cosines, tensors
    from normloom.tasks.missing_modality.network import digest

    split = parts(rows, held)
    learning, developing = (_anchors(rows, part, pairs, tuple(matrices)) for part in (split.learn, split.development))
    if learning is None:
        raise StageError(f"{held.generator}, fold {held.fold}: no anchor has both a positive and a negative")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own, every = tensors(matrices, split.learn, device), tensors(matrices, slice(None), device)

    def apart(anchors: Anchors | None) -> dict[str, float]:
        if anchors is None:
            return {}
        with torch.inference_mode():
            alike = cosines(network.eval()(every).flatten(0, 1).cpu(), anchors)
        network.train()
        positive = anchors.positive & anchors.there
        negative = ~anchors.positive & anchors.there
        return {"positive": alike[positive].mean().item(), "negative": alike[negative].mean().item()}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed + held.fold)
        network = Aligner(own, width=args.width, dropout=args.dropout).to(device)
        curve = [told(ALIGNER, held, 0, None, digest(network), **apart(developing))]
        optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
        for epoch in range(1, args.epochs + 1):
            losses = []
            for some in torch.split(torch.randperm(len(learning.anchor)), args.batch):
                asked, used = _compact(learning.rows(some), len(matrices))
                seen = {view: array[used.to(device)] for view, array in every.items()}
                alike = cosines(network(seen).flatten(0, 1).cpu(), asked)
                loss = contrastive_loss(alike, asked, temperature=args.temperature)
                if not torch.isfinite(loss):
                    raise StageError(f"the loss is {loss.item()}: lower align.learning_rate")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                optimizer.step()
                losses.append(loss.item())
            curve.append(told(ALIGNER, held, epoch, sum(losses) / len(losses), digest(network), **apart(developing)))
    return network.eval(), curve


def _compact(anchors: Anchors, views: int) -> tuple[Anchors, Any]:
    """Return anchors with places among the items that they name alone, and which items these are."""
    import torch

    items, places = torch.unique(
        torch.cat([anchors.anchor[:, None], anchors.others], dim=1) // views, return_inverse=True
    )
    seen = torch.cat([anchors.anchor[:, None], anchors.others], dim=1) % views
    within = places * views + seen
    return anchors._replace(anchor=within[:, 0], others=within[:, 1:]), items


def _anchors(rows: pl.DataFrame, part: Any, pairs: pl.DataFrame, views: tuple[str, ...]) -> Anchors | None:
    """Return the anchors of a part that have a positive and a negative in it, None without any."""
    from normloom.tasks.deepfakes.networks import anchors_of

    place = {item: number for number, item in enumerate(rows["item_id"])}
    inside = rows.filter(pl.Series(part))["item_id"].implode()
    some = pairs.filter(pl.col("anchor").is_in(inside) & pl.col("other").is_in(inside))
    count, number = len(views), {view: index for index, view in enumerate(views)}
    at = some.select(
        anchor=pl.col("anchor").replace_strict(place) * count + pl.col("anchor_view").replace_strict(number),
        other=pl.col("other").replace_strict(place) * count + pl.col("other_view").replace_strict(number),
        positive="positive",
    )
    grouped = at.group_by("anchor", maintain_order=True).agg("other", "positive")
    usable = grouped.filter(pl.col("positive").list.any() & ~pl.col("positive").list.all())
    return anchors_of(usable.rows()) if usable.height else None

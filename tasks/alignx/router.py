"""Train the router with its experts, and read it: how likely each axis is for each prompt."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each, free
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training import routing_tables
from normloom.schemas.training.alignx_tables import DEV, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.alignx.states import axes_of, ordered, plain_states
from normloom.tasks.media.fitted import one_thread

if TYPE_CHECKING:
    from normloom.models.routing.router import Router


class Routing(Args):
    """How the router is trained with its experts (ours; the paper's equations are not published)."""

    hidden: int = Field(32, ge=1, description="width of the layer of each expert of the router")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of that layer that is dropped")
    epochs: int = Field(60, ge=1, description="passes over the training prompts")
    batch: int = Field(64, ge=1, description="prompts in a step")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of AdamW")
    balance: float = Field(0.01, ge=0, description="weight of the loss that keeps the gate from one expert alone")
    seed: int = Field(42, description="seed of weights, order and dropout")


@step(
    makes=routing_tables.ROUTER_CURVE,
    files="router",
    needs=Needs(threads=1),
    libraries=("torch", "safetensors", "numpy"),
    fan_out=free("one row for each epoch"),
)
def router(rows: pl.DataFrame, args: Routing, states: pl.DataFrame, vectors: pl.DataFrame, *, run: Run) -> Output:
    """Train gate and experts together to say which axis a prompt is of; `rows` are the axis rows.

    `states` are those of the plain prompts, `vectors` the task vectors. The loss is the negative log-likelihood of the
    axis, plus `balance` times the squared coefficient of variation of the gate's mean weights (Shazeer et al. 2017,
    arXiv 1701.06538). Development rows are read for the curve only. Raises StageError for a loss that is not finite.
    """
    from normloom.models.routing.router import save_router

    axes = axes_of(rows)
    with one_thread():
        trained, curve = _trained(rows, args, states, vectors, axes, run)
    save_router(trained, axes, run.scratch)
    for path in run.scratch.glob("*.safetensors"):
        shutil.copyfile(path, run.files / path.name)
    made = pl.DataFrame(curve, schema=routing_tables.ROUTER_CURVE.columns).with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.col("epoch").cast(pl.String)
    )
    return Output(rows=made, attempts=made.height)


@step(makes=routing_tables.WEIGHED, name="weighed", libraries=("torch", "safetensors", "numpy"), fan_out=each())
def weigh(rows: pl.DataFrame, states: pl.DataFrame, *, router: ProductFiles) -> pl.DataFrame:
    """Return how likely the router finds each axis for each prompt, and the weights of its gate."""
    from normloom.models.routing.router import judged, load_router

    network, _ = load_router(router.path)
    asked = rows.select("row_id", "split", "axis", prompt_id="row_id")
    told, gate = judged(network, plain_states(asked, states))
    return asked.with_columns(
        pl.Series("log_probabilities", told.tolist(), dtype=pl.List(pl.Float64)),
        pl.Series("gate", gate.tolist(), dtype=pl.List(pl.Float64)),
    )


def _trained(
    rows: pl.DataFrame,
    args: Routing,
    states: pl.DataFrame,
    vectors: pl.DataFrame,
    axes: tuple[str, ...],
    run: Run,
) -> tuple[Router, list[dict[str, Any]]]:
    import numpy as np
    import torch

    from normloom.models.routing.router import Router
    from normloom.tasks.missing_modality.network import digest

    def part(split: str) -> tuple[Any, Any]:
        some = rows.filter(split=split).select("axis", prompt_id="row_id")
        if some.is_empty():
            return None, None
        labels = torch.tensor(ordered(some["axis"].to_list(), axes))
        return torch.from_numpy(plain_states(some, states)), labels

    own, labels = part(TRAIN)
    dev, dev_labels = part(DEV)
    shifts = dict(vectors.select("axis", "vector").iter_rows())
    moved = torch.from_numpy(np.array([shifts[axis] for axis in axes], dtype=np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        spread = own.std(0, correction=0).clamp_min(1e-3)
        network = Router(own.mean(0), spread, moved, hidden=args.hidden)
        optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
        measured = partial(_measured, network, own, labels, dev, dev_labels)
        curve: list[dict[str, Any]] = [{"epoch": 0, **measured(), "weights": digest(network)}]
        for epoch in range(1, args.epochs + 1):
            network.train()
            for batch in torch.split(torch.randperm(len(own)), args.batch):
                told, gate = network(own[batch], dropout=args.dropout)
                mean = gate.exp().mean(0)
                uneven = (mean.std(correction=0) / mean.mean()).square()
                loss = torch.nn.functional.nll_loss(told, labels[batch]) + args.balance * uneven
                if not torch.isfinite(loss):
                    raise StageError(f"the loss of the router is {loss.item()}: lower router.learning_rate")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch == args.epochs or not epoch % max(args.epochs // 20, 1):
                curve.append({"epoch": epoch, **measured(), "weights": digest(network)})
                run.progress(epoch, args.epochs, loss=curve[-1]["loss"])
    return network.eval(), curve


def _measured(network: Router, own: Any, labels: Any, dev: Any, dev_labels: Any) -> dict[str, float | None]:
    import torch

    network.eval()
    with torch.inference_mode():
        learned = float(torch.nn.functional.nll_loss(network(own)[0], labels))
        held_out = None if dev is None else float(torch.nn.functional.nll_loss(network(dev)[0], dev_labels))
    return {"loss": learned, "dev_loss": held_out}

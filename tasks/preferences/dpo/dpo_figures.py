"""Does a tuned policy prefer what it was trained to prefer, on prompts that it has not seen?

The implicit reward of a reply is beta * (log-probability by the policy - by the reference) (arXiv 2305.18290). A pair
is right if its chosen reply has the larger one; its loss is -log sigmoid of the difference. Without training both are
at their start: no pair is right or wrong, and the loss is ln 2. Intervals are percentile bootstraps over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MEASURES = {"accuracy": "reward_accuracy", "loss": "dpo_loss", "reward": "reward_margin"}
START = {"accuracy": 0.5, "loss": math.log(2), "reward": 0.0}


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def dpo_figures(rows: pl.DataFrame, reference: pl.DataFrame, *, beta: float) -> Output:
    """Return held-out accuracy, loss and reward margin of each policy, and the differences of each two.

    `rows` are the log-probabilities by the policies, `reference` those by the model that they were tuned from. The
    difference of two policies is paired: over the pairs that both have read, resampled together.
    """
    scored = scores(rows, reference, beta=beta)
    policies = scored["policy"].unique(maintain_order=True).to_list()
    figures = [
        figure_row(mean_over_groups(pairs, measure), metric=name, of=policy)
        for policy in policies
        for pairs in [scored.filter(policy=policy)]
        for measure, name in MEASURES.items()
    ]
    return figures_output([*figures, *_differences(scored, policies)])


def scores(rows: pl.DataFrame, reference: pl.DataFrame, *, beta: float) -> pl.DataFrame:
    """Return for each policy and pair the reward margin, the loss and whether it is right (a tie is half)."""
    base = reference.select("pair_id", base_chosen="chosen_logprob", base_rejected="rejected_logprob")
    reward = beta * (
        (pl.col("chosen_logprob") - pl.col("base_chosen")) - (pl.col("rejected_logprob") - pl.col("base_rejected"))
    )
    return (
        rows.join(base, on="pair_id", how="inner", maintain_order="left")
        .select("policy", "pair_id", "dialogue", reward=reward)
        .with_columns(
            loss=(-pl.col("reward")).exp().log1p(),
            accuracy=pl.when(pl.col("reward") == 0).then(0.5).otherwise((pl.col("reward") > 0).cast(pl.Float64)),
        )
    )


def _differences(scored: pl.DataFrame, policies: list[str]) -> Iterator[dict[str, object]]:
    for position, one in enumerate(policies):
        for other in policies[position + 1 :]:
            both = scored.filter(policy=other).join(
                scored.filter(policy=one), on="pair_id", suffix="_before", maintain_order="left"
            )
            for measure, name in MEASURES.items():
                change = both.select("dialogue", change=pl.col(measure) - pl.col(f"{measure}_before"))
                yield figure_row(mean_over_groups(change, "change"), metric=f"{name}_change", of=other, axis=one)


def mean_over_groups(rows: pl.DataFrame, column: str, *, group: str = "dialogue") -> Figure:
    """Return the mean of a column with its 95 % interval by resampling groups; undefined for few groups."""
    import numpy as np

    known = rows.drop_nulls(column)
    if reason := too_few(known[group].n_unique(), "prompts"):
        return Figure(undefined=reason, rows=known.height)
    summed = known.group_by(group, maintain_order=True).agg(total=pl.col(column).cast(pl.Float64).sum(), count=pl.len())
    totals, counts = summed["total"].to_numpy(), summed["count"].to_numpy()
    drawn = _resampled(len(totals))
    draws: npt.NDArray[np.float64] = (drawn @ totals) / (drawn @ counts)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(value=float(totals.sum() / counts.sum()), low=float(low), high=float(high), rows=known.height)


@lru_cache(maxsize=8)
def _resampled(number: int) -> npt.NDArray[np.float64]:
    """Return how often each group is in each resample, (resamples, groups), for all figures to share."""
    import numpy as np

    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    return drawn.astype(np.float64)  # a product of floats is many times faster

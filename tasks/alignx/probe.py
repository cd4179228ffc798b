"""A probe of the states: whether the axis of a prompt can be read from them at all, before anything is routed by it."""

from __future__ import annotations

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training.alignx_tables import TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.alignx.states import plain_states
from normloom.tasks.metrics.clustered import clustered, ratio
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

PROBE, CHANCE = "probe_accuracy", "probe_chance"


class Probing(Args):
    """The probe: a logistic regression."""

    strength: float = Field(1.0, gt=0, description="inverse strength of its regularisation")


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy", "scikit-learn"))
def probe_figures(rows: pl.DataFrame, args: Probing, states: pl.DataFrame) -> Output:
    """Return how often a logistic regression on the states of training prompts finds the axis of test prompts.

    The interval resamples prompts. Chance is one over the number of axes.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    learn, test = (rows.filter(split=split).select("axis", prompt_id="row_id") for split in (TRAIN, TEST))
    scale = np.sqrt(states["vector"].list.len()[0])  # the numbers of a unit vector are about 1 over this
    probe = LogisticRegression(C=args.strength, max_iter=1_000)
    probe.fit(plain_states(learn, states) * scale, learn["axis"].to_numpy())
    right = (probe.predict(plain_states(test, states) * scale) == test["axis"].to_numpy()).astype(np.float64)
    accuracy = clustered(np.column_stack([right, np.ones_like(right)]), ratio, rows=test.height, what="prompts")
    chance = Figure(value=1 / rows["axis"].n_unique(), rows=test.height)
    told = ((PROBE, accuracy), (CHANCE, chance))
    return figures_output([figure_row(figure, metric=metric, of="states") for metric, figure in told])

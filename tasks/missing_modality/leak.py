"""What a random split leaks: an image finds its own template in the training set."""

from __future__ import annotations

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.metrics.mean import RESAMPLES, SEED
from normloom.tasks.missing_modality.weighted import draws_by

BY_TEMPLATE, AT_RANDOM = "by template", "at random"
SAME_TEMPLATE = "nearest_of_same_template"


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def leak_figures(rows: pl.DataFrame, image: pl.DataFrame) -> Output:
    """Return for each split the share of items whose nearest training image has their template.

    `image` are the vectors. At random means that memes are split without regard to their templates, each in all its
    languages; an item is compared with the items of all other folds.
    """
    import numpy as np

    told = rows.join(image.select("item_id", "vector"), on="item_id", how="left", maintain_order="left")
    matrix = np.array(told["vector"].to_list(), dtype=np.float32)
    cosines = matrix @ matrix.T
    template = told["template"].rank("dense").to_numpy().astype("int64") - 1
    weights = draws_by(template, draws=RESAMPLES, seed=SEED)
    made = []
    for name, column in ((BY_TEMPLATE, "fold"), (AT_RANDOM, "random_fold")):
        fold = told[column].to_numpy()
        near = np.where(fold[:, None] == fold[None], -2.0, cosines).argmax(1)
        same = (template[near] == template).astype(np.float64)
        shares = (weights @ same) / weights.sum(1)
        low, high = np.quantile(shares[1:], [0.025, 0.975])
        value = Figure(value=float(shares[0]), low=float(low), high=float(high), rows=len(told))
        made.append(figure_row(value, metric=SAME_TEMPLATE, of="image", slice_by="split", slice=name))
    return figures_output(made)

"""What each variant makes of the items that were held out from it; higher is more likely real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output
from normloom.schemas.media import deepfake_tables
from normloom.schemas.media.deepfake_tables import REAL
from normloom.steps.step import step
from normloom.tasks.deepfakes.aligners import view_matrices
from normloom.tasks.deepfakes.held_out import HeldOut, Parts, held_out, parts
from normloom.tasks.deepfakes.refiners import VARIANTS, Refining, new_scorer
from normloom.tasks.media.fitted import file_name
from normloom.tasks.metrics.equal_error_rate import equal_error_rate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

ALL_VIEWS = "all_views"
_ROUNDS = 3_000  # of logistic regression, at most


def alone(view: str) -> str:
    """Return the name of the baseline that sees one view."""
    return f"only_{view}"


@step(
    makes=deepfake_tables.SCORES,
    libraries=("torch", "transformers", "safetensors", "numpy"),
    fan_out=free("one row for each variant, held-out pair and tested item"),
)
def scores(
    rows: pl.DataFrame,
    args: Refining,
    *vectors: pl.DataFrame,
    views: tuple[str, ...],
    fits: ProductFiles,
    refiner: ModelSpec | None = None,
) -> Output:
    """Return the logit of real that each variant gives to the items held out from it; `args` are the refiners'."""
    import torch

    from normloom.tasks.deepfakes.networks import tensors

    matrices = view_matrices(rows, views, vectors)
    made = []
    for held in held_out(rows):
        split = parts(rows, held)
        own, every = tensors(matrices, split.learn), tensors(matrices, slice(None))
        for variant in VARIANTS:
            network = loaded(fits, variant, held, own, args, refiner)
            with torch.inference_mode():
                logits = network(every).double().numpy()
            made.append(_table(rows, variant, held, split, logits))
    return _output(pl.concat(made))


@step(
    makes=deepfake_tables.SCORES,
    libraries=("scikit-learn", "numpy"),
    fan_out=free("one row for each view, held-out pair and tested item"),
)
def baseline_scores(rows: pl.DataFrame, *vectors: pl.DataFrame, views: tuple[str, ...]) -> Output:
    """Return what logistic regression makes of each view alone and of all views side by side (`all_views`)."""
    import numpy as np

    matrices = view_matrices(rows, views, vectors)
    seen = {alone(view): matrix for view, matrix in matrices.items()}
    if len(views) > 1:
        seen[ALL_VIEWS] = np.concatenate(list(matrices.values()), axis=1)
    made = [
        _table(rows, name, held, split, _regressed(matrix, rows, split))
        for held in held_out(rows)
        for split in [parts(rows, held)]
        for name, matrix in seen.items()
    ]
    return _output(pl.concat(made))


def _regressed(matrix: Any, rows: pl.DataFrame, split: Parts) -> Array:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    real = (rows["label"] == REAL).to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ROUNDS, class_weight="balanced"))
    told: Array = model.fit(matrix[split.learn], real[split.learn]).decision_function(matrix)
    return told.astype("float64")


def loaded(fits: ProductFiles, variant: str, held: HeldOut, own: Any, args: Refining, refiner: ModelSpec | None) -> Any:
    """Return the trained network of a variant."""
    from safetensors.torch import load_file

    network = new_scorer(variant, own, args, refiner, empty=True)
    network.load_state_dict(load_file(fits.path / file_name(variant, *held)))
    return network.eval()


def _table(rows: pl.DataFrame, variant: str, held: HeldOut, split: Parts, told: Array) -> pl.DataFrame:
    real = (rows["label"] == REAL).to_numpy()
    cut = equal_error_rate(told[split.development], real[split.development]).cut
    return (
        rows.with_columns(score=pl.Series(told))
        .filter(pl.Series(split.test))
        .select(
            pl.lit(variant).alias("variant"),
            pl.lit(held.generator).alias("held_out"),
            pl.lit(held.fold, dtype=pl.Int64).alias("fold"),
            "item_id",
            "label",
            "source_item",
            "score",
            threshold=pl.lit(cut),
            row_id="row_id",
        )
    )


def _output(made: pl.DataFrame) -> Output:
    content = pl.concat_str("variant", "held_out", "fold", separator="\x1f")
    return Output(rows=made.with_columns(content=content), attempts=made.height)

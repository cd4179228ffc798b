"""How well a shortcut alone tells chosen from rejected: the length of a reply, its format, who wrote it.

A policy that is trained on pairs which one of them tells apart may learn just that. The measure is the area under the
ROC curve: of the format as it is, of the length by a small tree, of the generator by a logistic regression, each
reply scored by a fit on other prompts. Its interval is a percentile bootstrap over prompts, since the pairs of a prompt
share their replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import FORMAT
from normloom.steps.step import step
from normloom.tasks.metrics.figure import FEWEST, Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LENGTH, GENERATOR = "length", "generator"
FEATURES = (LENGTH, FORMAT, GENERATOR)
FOLDS, LEAVES = 5, 10
AUC = "auc"


@step(
    makes=preference_tables.SHORTCUTS,
    fan_out=free("one row for each feature and method"),
    libraries=("numpy", "scikit-learn"),
)
def shortcuts(rows: pl.DataFrame) -> Output:
    """Return the area under the curve of each feature and method of pairing, with its interval; 0.5 is chance."""
    figures = []
    for (method,), pairs in rows.group_by("method", maintain_order=True):
        sides = _sides(pairs)
        figures += [
            figure_row(_figure(sides, feature, pairs.height), metric=AUC, of=feature, axis=str(method))
            for feature in FEATURES
        ]
    return figures_output(figures)


def _sides(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return two rows for each pair: dialogue, chosen or not, and the features."""
    chosen = pairs.select(
        "dialogue",
        chosen=pl.lit(value=True),
        length="chosen_words",
        format=pl.lit(1.0),
        generator="chosen_model",
    )
    rejected = pairs.select(
        "dialogue",
        chosen=pl.lit(value=False),
        length="rejected_words",
        format=(pl.col("rejected_kind") != FORMAT).cast(pl.Float64),
        generator="rejected_model",
    )
    return pl.concat([chosen, rejected])


def _figure(sides: pl.DataFrame, feature: str, pairs: int) -> Figure:
    prompts = sides["dialogue"].n_unique()
    if reason := too_few(prompts, "prompts"):
        return Figure(undefined=reason, rows=pairs)
    if sides[feature].n_unique() == 1:
        return Figure(value=0.5, rows=pairs)
    groups = sides["dialogue"].rank("dense").to_numpy().astype("int64") - 1
    value, low, high = auc_over_groups(sides["chosen"].to_numpy(), _scores(sides, feature, groups), groups)
    return Figure(value=value, low=low, high=high, rows=pairs)


def _scores(sides: pl.DataFrame, feature: str, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what speaks for each side: whether it parsed, or the probability that it is chosen by a fit elsewhere."""
    if feature == FORMAT:
        return sides[feature].to_numpy()
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    values = sides.select(feature).to_numpy()
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    if feature == LENGTH:
        model = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=FEWEST, random_state=SEED)
    folds = GroupKFold(min(FOLDS, int(groups.max()) + 1))
    predicted = cross_val_predict(
        model, values, sides["chosen"].to_numpy(), groups=groups, cv=folds, method="predict_proba"
    )
    probabilities: npt.NDArray[np.float64] = predicted[:, 1]
    return probabilities


def auc_over_groups(
    truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]
) -> tuple[float, float, float]:
    """Return the area under the ROC curve with its 95 % interval by resampling groups; all are (rows,).

    A draw is a count of each group; the area is the share of (chosen, rejected) that are in the right order, ties half
    (Mann and Whitney 1947), over the distinct scores. Draws that have but one class are left out.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    distinct, position = np.unique(scores, return_inverse=True)
    counts = np.zeros((2, groups.max() + 1, len(distinct)))
    np.add.at(counts, (truth.astype(np.int64), groups, position), 1)
    number = counts.shape[1]
    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    rejected, chosen = drawn @ counts
    below = rejected.cumsum(axis=1) - rejected / 2
    pairs = chosen.sum(axis=1) * rejected.sum(axis=1)
    draws = ((chosen * below).sum(axis=1)[pairs > 0]) / pairs[pairs > 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(roc_auc_score(truth, scores)), float(low), float(high)

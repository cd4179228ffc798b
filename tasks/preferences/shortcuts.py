"""How well a shortcut alone tells chosen from rejected: the length of a reply, its format, who wrote it.

A policy that is trained on pairs which one of them tells apart may learn just that. The measure is the area under the
ROC curve of a logistic regression on the one feature, each reply scored by a fit on other prompts; its interval is a
percentile bootstrap over prompts, since the pairs of a prompt share their replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import preference_tables
from normloom.schemas.preference_tables import FORMAT
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LENGTH, GENERATOR = "length", "generator"
FEATURES = (LENGTH, FORMAT, GENERATOR)
FOLDS, BINS = 5, 10
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
        for feature in FEATURES:
            figures.append(figure_row(_figure(sides, feature, pairs.height), metric=AUC, of=feature, axis=str(method)))
    return figures_output(figures)


def _sides(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return two rows for each pair: dialogue, chosen or not, and the features."""
    chosen = pairs.select(
        "dialogue",
        chosen=pl.lit(value=True),
        length="chosen_words",
        format=pl.lit("parsed"),
        generator="chosen_model",
    )
    failed = pl.when(rejected_kind=FORMAT).then(pl.lit("failed")).otherwise(pl.lit("parsed"))
    rejected = pairs.select(
        "dialogue", chosen=pl.lit(value=False), length="rejected_words", format=failed, generator="rejected_model"
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
    """Return for each side the probability that it is chosen, by a fit on other prompts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder

    encoder: Any = OneHotEncoder(handle_unknown="ignore")
    if feature == LENGTH:
        encoder = KBinsDiscretizer(BINS, encode="onehot", quantile_method="averaged_inverted_cdf", subsample=None)
    values = sides.select(feature).to_numpy()
    model = make_pipeline(encoder, LogisticRegression())
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

    Rows of one group, score and truth count together: a draw then weighs few rows, however many there are.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    distinct, place = np.unique(scores.round(12), return_inverse=True)
    kinds = place * 2 + truth
    counts = np.zeros((groups.max() + 1, 2 * len(distinct)))
    np.add.at(counts, (groups, kinds), 1)
    labels, values = np.arange(2 * len(distinct)) % 2, np.repeat(distinct, 2)

    def area(weights: npt.NDArray[np.float64]) -> float:
        return float(roc_auc_score(labels, values, sample_weight=weights))

    rng, number = np.random.default_rng(SEED), len(counts)
    draws = [area(rng.multinomial(number, np.full(number, 1 / number)) @ counts) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return area(counts.sum(axis=0)), float(low), float(high)

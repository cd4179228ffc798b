"""Labels by embedding: from sentence vectors to a score for each label, and from scores to probabilities.

The score of label l for a prompt with unit vector x is w_l . x. `train` learns the w_l by multinomial
logistic regression on the vectors of the labels' own texts and of labelled prompts, each a point of
its class; without labelled prompts the mean of a label's texts does for w_l, and scores are cosines.

Scores become probabilities by Platt's method (J. Platt, Probabilistic outputs for support vector
machines, 1999), with one feature more than his, so that a label is judged beside its rivals:

    P(l | x) = 1 / (1 + exp(-(a s_l + b m_l + c + d))),    m_l = s_l - max over k != l of s_k

a, b and c maximise the regularised likelihood of the calibration prompts' labels, all labels of a
dimension together. They alone give an honest probability, under which the rare labels of a large
taxonomy seldom reach one half. d therefore moves the odds until as many labels reach one half as the
calibration prompts carry: at 0.5, precision and recall break even there.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from normloom.errors import ConfigError
from normloom.schemas.taxonomy import MIN_LABELS, Label

STRENGTH = 5.0  # inverse regularisation of the label vectors
FOLDS = 5
LARGEST_LOGIT = 30.0  # keeps probabilities inside (0, 1)


class Calibration(BaseModel):
    """The coefficients of one dimension: a, b, c and d of the formula above."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float = Field(gt=0)
    margin: float = Field(ge=0)
    intercept: float
    shift: float


def label_texts(label: Label) -> tuple[str, ...]:
    """Return the texts that stand for a label."""
    return label.name, label.definition, f"{label.name}: {label.definition}"


def train(texts: np.ndarray, prompts: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Calibration]:
    """Return a vector for each label, shape (labels, dimensions), and the calibration of scores against them.

    `texts` are the vectors of the labels' texts, shape (labels, texts, dimensions); `truth` says which
    labels each of `prompts` carries. The calibration is fitted on scores of prompts that the vectors
    behind them have not seen.
    """
    scores = np.empty(truth.shape)
    fold = np.arange(len(prompts)) % FOLDS
    for held_out in (fold == number for number in range(FOLDS)):
        if held_out.any():
            scores[held_out] = prompts[held_out] @ label_vectors(texts, prompts[~held_out], truth[~held_out]).T
    return label_vectors(texts, prompts, truth), fit(scores, truth)


def label_vectors(texts: np.ndarray, prompts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the learned vector of each label, shape (labels, dimensions)."""
    labels, per_label, dimensions = texts.shape
    rows, classes = np.nonzero(truth)
    points = np.vstack([texts.reshape(-1, dimensions), prompts[rows]]).astype(np.float64)
    targets = np.concatenate([np.repeat(np.arange(labels), per_label), classes])
    from sklearn.linear_model import LogisticRegression  # seconds to import: a build that fits nothing does without

    model = LogisticRegression(C=STRENGTH, class_weight="balanced", fit_intercept=False, max_iter=1000)
    vectors: np.ndarray = model.fit(points, targets).coef_
    # Of two classes scikit-learn keeps only the second one's vector.
    return vectors if labels == len(vectors) else np.vstack([-vectors, vectors]) / 2


def fit(similarities: np.ndarray, truth: np.ndarray) -> Calibration:
    """Return the calibration of scores, shape (prompts, labels), whose labels are known.

    A probability must not fall when its score grows: where the margin would count against a label,
    it is left out.
    """
    if similarities.shape != truth.shape:
        raise ConfigError(
            f"calibration: {similarities.shape} similarities and {truth.shape} labels; expected one each."
        )
    if not truth.any() or truth.all():
        raise ConfigError("calibration: expected prompts with some of the labels; label more prompts.")
    features = _features(similarities)
    targets = truth.ravel().astype(int)
    score, margin, intercept = _logistic(features, targets)
    if score <= 0 or margin < 0:
        score, intercept = _logistic(features[:, :1], targets)
        margin = 0.0
    if score <= 0:
        raise ConfigError("calibration: labelled prompts are no nearer to their labels than others; check the labels.")
    odds = np.sort(features @ (score, margin) + intercept)[::-1]
    kept = int(targets.sum())
    return Calibration(score=score, margin=margin, intercept=intercept, shift=-float(odds[kept - 1] + odds[kept]) / 2)


def probabilities(similarities: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Return the probability of each label for each prompt, shape (prompts, labels)."""
    weights = (calibration.score, calibration.margin)
    logits = _features(similarities) @ weights + calibration.intercept + calibration.shift
    values: np.ndarray = 1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)))
    return values.reshape(similarities.shape)


def _features(similarities: np.ndarray) -> np.ndarray:
    """Return score and margin of each label of each prompt, shape (prompts x labels, 2)."""
    if similarities.shape[1] < MIN_LABELS:
        raise ConfigError(f"calibration: expected prompts x labels, two labels or more; found {similarities.shape}.")
    if not np.isfinite(similarities).all():
        raise ConfigError("calibration: a similarity is not a finite number; check the vectors.")
    scores = similarities.astype(np.float64)
    best = scores.argmax(axis=1, keepdims=True)
    rival = np.broadcast_to(scores.max(axis=1, keepdims=True), scores.shape).copy()
    second = np.partition(scores, -2, axis=1)[:, -2:-1]
    np.put_along_axis(rival, best, second, axis=1)
    return np.stack([scores.ravel(), (scores - rival).ravel()], axis=1)


def _logistic(features: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """Return the weights of the features and the intercept; features are regularised on one scale."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1
    model = LogisticRegression().fit((features - centre) / scale, targets)
    weights = model.coef_[0] / scale
    return (*map(float, weights), float(model.intercept_[0] - weights @ centre))

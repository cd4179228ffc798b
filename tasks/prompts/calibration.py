"""Labels by embedding: from sentence vectors to a probability for each label.

One multinomial logistic regression a dimension, over its labels and "none of them". It learns from labelled
prompts and from the labels' own texts, each a point of its class; a prompt with n labels is n points of weight
1/n, and a class of c points weighs as sqrt(c), so that harmless prompts, which are the most, do not decide alone.

The probabilities of many labels seldom reach one half. Their odds are therefore moved by one factor, chosen so that
the labels that reach one half have the best F1 on prompts which the regression had not seen (FOLDS folds): a
stored probability is a score on which 0.5 balances precision and recall, not a frequency.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from normloom.core.errors import ConfigError
from normloom.schemas.taxonomy import Label

STRENGTH = 5.0  # inverse regularisation
TOLERANCE = 1e-3
FOLDS = 3
LARGEST_LOGIT = 30.0  # keeps probabilities inside (0, 1)


class Calibration(BaseModel):
    """The intercepts of one dimension, of its labels and then of none, and by how much log-odds are raised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercepts: tuple[float, ...]
    shift: float = 0.0


def label_texts(label: Label) -> tuple[str, ...]:
    """Return the texts that stand for a label."""
    return label.name, label.definition, f"{label.name}: {label.definition}"


def train(texts: np.ndarray, prompts: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Calibration]:
    """Return a vector for each label and one for none, shape (labels + 1, dimensions), and their calibration.

    `texts` are the vectors of the labels' texts, shape (labels, texts, dimensions); `truth` says which
    labels each of `prompts` carries, shape (prompts, labels).
    """
    if len(prompts) != len(truth) or texts.shape[0] != truth.shape[1]:
        raise ConfigError(
            f"calibration: {len(prompts)} prompts and {texts.shape[0]} labels, but references of shape {truth.shape}"
        )
    if not truth.any() or truth.all():
        raise ConfigError("calibration: expected prompts with some of the labels; label more prompts")
    if not (np.isfinite(texts).all() and np.isfinite(prompts).all()):
        raise ConfigError("calibration: a vector holds a number that is not finite; check the embedder")
    unseen = np.empty(truth.shape)
    fold = np.arange(len(prompts)) % FOLDS
    for held_out in (fold == number for number in range(FOLDS)):
        if held_out.any():
            vectors, calibration = regress(texts, prompts[~held_out], truth[~held_out])
            unseen[held_out] = probabilities(prompts[held_out] @ vectors.T, calibration)
    threshold = best_threshold(unseen, truth)
    vectors, calibration = regress(texts, prompts, truth)
    return vectors, calibration.model_copy(update={"shift": -float(_logit(threshold))})


def regress(texts: np.ndarray, prompts: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, Calibration]:
    """Return the vectors and intercepts of a logistic regression, without a shift; arguments as of `train`."""
    from sklearn.linear_model import LogisticRegression  # seconds to import: a build that fits nothing does without

    labels, per_label, dimensions = texts.shape
    rows, classes = np.nonzero(truth)
    none = np.flatnonzero(~truth.any(axis=1))
    points = np.vstack([texts.reshape(-1, dimensions), prompts[rows], prompts[none]]).astype(np.float32)
    targets = np.concatenate([np.repeat(np.arange(labels), per_label), classes, np.full(len(none), labels)])
    weights = np.concatenate([np.ones(labels * per_label), 1 / truth.sum(axis=1)[rows], np.ones(len(none))])
    sizes = np.bincount(targets, weights=weights)
    weights *= np.sqrt(sizes.mean() / sizes[targets])
    model = LogisticRegression(C=STRENGTH, tol=TOLERANCE, max_iter=1000)
    model.fit(points, targets, sample_weight=weights.astype(np.float32))
    slopes, constants = model.coef_, model.intercept_
    if len(slopes) == 1:  # of two classes scikit-learn keeps only the second one's
        slopes, constants = np.vstack([-slopes, slopes]) / 2, np.concatenate([-constants, constants]) / 2
    vectors = np.zeros((labels + 1, dimensions), np.float32)
    intercepts = np.full(labels + 1, -2 * LARGEST_LOGIT)  # none, if no prompt is without a label
    vectors[model.classes_], intercepts[model.classes_] = slopes, constants
    return vectors, Calibration(intercepts=tuple(map(float, intercepts)))


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the score from which labels are kept with the best F1, all of them counted together."""
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked = scores.ravel()[order]
    right = np.cumsum(truth.ravel()[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + right[-1])
    last = np.append(ranked[1:] < ranked[:-1], True)  # equal scores are kept together
    best = int(np.argmax(np.where(last, f1, -1)))
    return float(ranked[best] + ranked[min(best + 1, len(ranked) - 1)]) / 2


def probabilities(scores: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Return the probability of each label, shape (prompts, labels), from prompts @ vectors, none in the last."""
    if scores.shape[1:] != (len(calibration.intercepts),):
        raise ConfigError(
            f"calibration: expected {len(calibration.intercepts)} scores a prompt, one for each label and one for "
            f"none; found shape {scores.shape}"
        )
    logits = scores.astype(np.float64) + calibration.intercepts
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    odds = np.clip(_logit(shares[:, :-1]) + calibration.shift, -LARGEST_LOGIT, LARGEST_LOGIT)
    values: np.ndarray = 1 / (1 + np.exp(-odds))
    return values


def _logit(shares: np.ndarray | float) -> np.ndarray:
    inside = np.clip(shares, np.exp(-LARGEST_LOGIT), 1 - 1e-15)
    values: np.ndarray = np.log(inside) - np.log1p(-inside)
    return values

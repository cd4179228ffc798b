"""Measure labels against the source's own, and coverage of the labels before and after expansion."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, too_few
from normloom.tasks.metrics.share import share

if TYPE_CHECKING:
    import numpy as np

MEASURES = ("precision", "recall", "top1", "macro_recall")


@step(makes=tables.AGREEMENT, fan_out=free("one row for each measure of a dimension"), libraries=("numpy",))
def agreement(rows: pl.DataFrame, *, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Compare labels with the source's reference labels, dimension by dimension.

    `precision` and `recall` look at the labels kept at delta, which are those that are released, over all prompts:
    the share of kept labels that are reference labels, and the share of reference labels that are kept. `top1` and
    `macro_recall` look at the most probable label of prompts that have a reference label, whether it is kept or not
    (top1: it is one of them; macro recall: the mean over labels of the share found). `rows` says what a measure counts:
    kept labels, reference labels, or prompts. `prior` is the same measure for always naming the most frequent label.
    """
    import numpy as np

    measured: list[dict[str, object]] = []
    start = 0
    for taxonomy in taxonomies:
        stop = start + len(taxonomy.labels)
        positions = {label.id: position for position, label in enumerate(taxonomy.labels)}
        truth = np.zeros((rows.height, len(positions)), dtype=bool)
        kept = np.zeros_like(truth)
        for number, (reference, labels) in enumerate(rows.select("reference", "labels").iter_rows()):
            truth[number, [positions[label] for label in reference or [] if label in positions]] = True
            kept[number, [positions[label["label"]] for label in labels if label["label"] in positions]] = True
        scores = np.array(
            [[-1.0 if value is None else value for value in row[start:stop]] for row in rows["probabilities"].to_list()]
        ).reshape(rows.height, len(positions))
        for measure, (figure, prior) in _measures(truth, kept, scores).items():
            measured.append(
                {
                    "parents": [],
                    "content": f"{taxonomy.dimension} {measure}",
                    "dimension": taxonomy.dimension,
                    "measure": measure,
                    "value": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "rows": figure.rows,
                    "prior": prior,
                    "prompts": int(truth.any(axis=1).sum()),
                    "undefined": figure.undefined,
                }
            )
        start = stop
    schema = tables.named_by_content(tables.AGREEMENT)
    return Output(rows=pl.DataFrame(measured, schema=schema))


def _measures(truth: np.ndarray, kept: np.ndarray, scores: np.ndarray) -> dict[str, tuple[Figure, float | None]]:
    """Return each measure with its prior; arrays are (prompts, labels)."""
    import numpy as np

    labelled = truth.any(axis=1)
    if not labelled.any():
        none = Figure(undefined="no prompt has a reference label")
        return dict.fromkeys(MEASURES, (none, None))
    known, best = truth[labelled], scores[labelled].argmax(axis=1)
    frequent = int(known.sum(axis=0).argmax())
    guess, common = np.zeros_like(known), np.zeros_like(truth)
    guess[np.arange(len(known)), best] = True
    common[:, frequent] = True
    reason = too_few(len(known), "prompts")
    mean = Figure(rows=len(known), undefined=reason, value=None if reason else macro_recall(known, guess))
    return {
        "precision": (_found(truth & kept, kept, "kept labels"), _prior(truth & common, common)),
        "recall": (_found(truth & kept, truth, "reference labels"), _prior(truth & common, truth)),
        "top1": (_found(known & guess, guess, "prompts"), _prior(known & common[labelled], common[labelled])),
        "macro_recall": (mean, macro_recall(known, common[labelled])),
    }


def _found(part: np.ndarray, whole: np.ndarray, what: str) -> Figure:
    return share(int(part.sum()), int(whole.sum()), empty=f"no {what}", what=what)


def _prior(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum())


def macro_recall(truth: np.ndarray, guess: np.ndarray) -> float:
    """Return the mean, over labels that occur, of the share of their prompts for which they are guessed.

    Both arrays are boolean of shape (prompts, labels).
    """
    occurring = truth.any(axis=0)
    found = (truth & guess).sum(axis=0)[occurring] / truth.sum(axis=0)[occurring]
    return float(found.mean())


@step(makes=tables.COVERAGE, reads=("origin", "labels"), fan_out=free("one row for each label"))
def coverage(rows: pl.DataFrame, gaps: pl.DataFrame, *, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Count the prompts of each label before expansion, those added, and what its quota still lacks."""
    expansion = pl.col("origin") == "expansion"
    before, added = _counted(rows.filter(~expansion)), _counted(rows.filter(expansion))
    quotas = dict(gaps.select("label", "quota").iter_rows())
    counted = [
        {
            "parents": [],
            "content": label.id,
            "dimension": taxonomy.dimension,
            "label": label.id,
            "before": before[label.id],
            "quota": quotas.get(label.id, 0),
            "added": added[label.id],
            "missing": max(quotas.get(label.id, 0) - added[label.id], 0),
        }
        for taxonomy in taxonomies
        for label in taxonomy.labels
    ]
    schema = tables.named_by_content(tables.COVERAGE)
    return Output(rows=pl.DataFrame(counted, schema=schema))


def _counted(rows: pl.DataFrame) -> Counter[str]:
    """Return how many of the rows have each label."""
    labels = rows["labels"].explode(empty_as_null=False).struct.field("label").drop_nulls()
    return Counter(dict(labels.value_counts().iter_rows()))

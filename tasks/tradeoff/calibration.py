"""How far the confidence of a router is from how often it is right, before and after calibration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training import alignx_tables
from normloom.schemas.training.alignx_tables import DEV, TEST
from normloom.steps.step import step
from normloom.tasks.metrics.clustered import clustered, ratio
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from normloom.tasks.metrics.clustered import Statistic

    Array = npt.NDArray[np.float64]

Row = dict[str, object]
UNCALIBRATED, GLOBAL, LOCAL = "uncalibrated", "global", "local"
PROBABILITIES = {UNCALIBRATED: "probabilities", GLOBAL: "calibrated_global", LOCAL: "calibrated_local"}
BINS = 10
ECE, BRIER, ACCURACY, CONFIDENCE, TEMPERATURE = "ece", "brier", "accuracy", "confidence", "temperature"
CHANGE = "change"
PROMPTS = "prompts"
HELD_OUT = (TEST, DEV)  # the router saw neither; calibrators are fitted on the second


@step(makes=alignx_tables.RELIABILITY, fan_out=free("one row for each bin"), libraries=("numpy",))
def reliability(rows: pl.DataFrame) -> Output:
    """Return mean confidence and accuracy of the likeliest axis in ten bins of equal width, by calibration and split.

    `rows` are under `ROUTED`: the axes in alphabetical order.
    """
    import numpy as np

    made = []
    for split, of, told in _parts(rows):
        confidence, right, _ = _confident(told, PROBABILITIES[of])
        where = _bins(confidence)
        for number in range(BINS):
            there = where == number
            some = bool(there.any())
            made.append(
                {
                    "parents": [],
                    "content": f"{of}\x1f{split}\x1f{number}",
                    "of": of,
                    "split": split,
                    "bin": number,
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "rows": int(there.sum()),
                    "confidence": float(np.mean(confidence[there])) if some else None,
                    "accuracy": float(np.mean(right[there])) if some else None,
                }
            )
    frame = pl.DataFrame(made, schema=tables.named_by_content(alignx_tables.RELIABILITY))
    return Output(rows=frame, attempts=frame.height)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def calibration_figures(rows: pl.DataFrame, calibrators: pl.DataFrame | None = None) -> Output:
    """Return ECE, Brier score, accuracy and mean confidence before and after calibration, and what calibration changed.

    The expected calibration error has ten bins: the sum of n_b / n |accuracy_b - confidence_b| of the likeliest axis
    (Guo and others 2017). The Brier score is the mean of (p - y)^2 over rows and axes. `_change` is the difference to
    the uncalibrated probabilities over the same rows. Intervals resample prompts. `calibrators` have kind (global or
    local) and temperature, whose mean is a figure with its spread.
    """
    figures = [figure for split, of, told in _parts(rows) for figure in _of_part(told, of, split)]
    if calibrators is not None:
        for (kind,), own in calibrators.group_by("kind", maintain_order=True):
            spread = own["temperature"].std() if own.height > 1 else None
            mean = float(own["temperature"].sum()) / own.height
            figure = Figure(value=mean, spread=None if spread is None else float(str(spread)), rows=own.height)
            figures.append(figure_row(figure, metric=TEMPERATURE, of=str(kind)))
    return figures_output(figures)


def _parts(rows: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield split, kind and rows of what is held out."""
    for split in HELD_OUT:
        told = rows.filter(split=split).sort("prompt_id")
        if told.height:
            for of in PROBABILITIES:
                yield split, of, told.with_columns(axes=pl.lit(sorted(rows["axis"].unique())))


def _of_part(rows: pl.DataFrame, of: str, split: str) -> Iterator[Row]:
    import numpy as np

    confidence, right, brier = _confident(rows, PROBABILITIES[of])
    one = np.ones_like(right)

    def named(figure: Figure, metric: str) -> Row:
        return figure_row(figure, metric=metric, of=of, slice_by="split", slice=split)

    def over(counts: Array, statistic: Statistic) -> Figure:
        return clustered(counts, statistic, rows=rows.height, what=PROMPTS)

    own = _binned(confidence, right)
    yield named(over(own, _ece), ECE)
    yield named(over(np.column_stack([brier, one]), ratio), BRIER)
    yield named(over(np.column_stack([right, one]), ratio), ACCURACY)
    yield named(over(np.column_stack([confidence, one]), ratio), CONFIDENCE)
    if of != UNCALIBRATED:
        before, was_right, brier_before = _confident(rows, PROBABILITIES[UNCALIBRATED])
        width = own.shape[1]
        both = np.column_stack([own, _binned(before, was_right)])
        yield named(over(both, lambda sums: _ece(sums[:, :width]) - _ece(sums[:, width:])), f"{ECE}_{CHANGE}")
        yield named(over(np.column_stack([brier - brier_before, one]), ratio), f"{BRIER}_{CHANGE}")


def _confident(rows: pl.DataFrame, column: str) -> tuple[Array, Array, Array]:
    """Return of each row the largest probability, whether it is the true axis's (0 or 1), and its Brier score."""
    import numpy as np

    axes = rows["axes"][0].to_list()
    given = np.array(rows[column].to_list(), dtype=np.float64)
    true = np.array([axes.index(axis) for axis in rows["axis"]])
    right = (given.argmax(axis=1) == true).astype(np.float64)
    return given.max(axis=1), right, ((given - np.eye(len(axes))[true]) ** 2).mean(axis=1)


def _bins(confidence: Array) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def _binned(confidence: Array, right: Array) -> Array:
    """Return (rows, bins + 1): right minus confidence in the bin that a row is in, and a last column of ones."""
    import numpy as np

    inside = np.eye(BINS)[_bins(confidence)]
    return np.column_stack([inside * (right - confidence)[:, None], np.ones_like(right)])


def _ece(sums: Array) -> Array:
    """Return the expected calibration error of sums (draws, bins + 1) of `_binned`."""
    import numpy as np

    found: Array = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return found

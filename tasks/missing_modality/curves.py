"""How well each method does with less and less of a modality; intervals resample whole templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media.modality_tables import IMAGE, METHODS, SHARED, TEXT
from normloom.steps.step import step
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED
from normloom.tasks.missing_modality.scenarios import COMPLETE, OCR, permuted
from normloom.tasks.missing_modality.weighted import auroc, draws_by, weighted_f1

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

AUROC, MACRO_F1, GAIN, AREA, DROP, CROSSOVER, RELIANCE = (
    "auroc",
    "macro_f1",
    "auroc_gain",
    "auroc_area",
    "auroc_drop",
    "crossover_share",
    "reliance",
)
_DRAWS = 2  # fewer than these with a value, and there is no interval


@dataclass(frozen=True)
class Measured:
    """AUROC and macro-F1 by scenario and method, each (1 + draws,): the first of all items, then of the draws."""

    auroc: Mapping[tuple[str, str], Array]
    f1: Mapping[tuple[str, str], Array]
    items: int
    templates: int

    def figure(self, values: Array) -> Figure:
        """Return a figure of values by draw."""
        import numpy as np

        if reason := too_few(self.templates, "templates"):
            return Figure(undefined=reason, rows=self.items)
        drawn = values[1:][np.isfinite(values[1:])]
        if not np.isfinite(values[0]) or len(drawn) < _DRAWS:
            return Figure(undefined="nothing to compare", rows=self.items)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Figure(value=float(values[0]), low=float(low), high=float(high), rows=self.items)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def curves(rows: pl.DataFrame, items: pl.DataFrame, scenarios: pl.DataFrame) -> Output:
    """Return AUROC and macro-F1 of each method in each scenario, and what shared gains over each other method.

    Over each curve: its area, its drop from all to nothing, the share present below which another method passes
    shared, and for each modality the AUROC that is lost if items are seen with another item's (reliance).
    """
    found = measure(rows, items)
    shares = {
        modality: sorted(
            scenarios.filter(missing=modality).select("scenario_id", "present").unique().rows(), key=_share
        )
        for modality in (TEXT, IMAGE)
    }
    made = [row for modality, steps in shares.items() for row in _curve(found, modality, steps)]
    made += [
        figure_row(
            found.figure(found.auroc[COMPLETE, method] - found.auroc[permuted(modality), method]),
            metric=RELIANCE,
            of=method,
            axis=modality,
        )
        for modality in (TEXT, IMAGE)
        for method in METHODS
    ]
    return figures_output(made)


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def ocr_figures(rows: pl.DataFrame, items: pl.DataFrame, whole: pl.DataFrame, read: pl.DataFrame) -> Output:
    """Return AUROC with the texts that OCR read and with the captions, of the same items, and OCR's errors.

    `whole` are the predictions with the captions, `read` what was read. The errors are medians by language.
    """
    made = [
        figure_row(
            Figure(value=float(group["character_error"].median()), rows=group.height),  # type: ignore[arg-type]  # a number
            metric="ocr_median_error",
            of=OCR,
            slice_by="language",
            slice=str(language),
        )
        for (language,), group in read.join(items.select("item_id", "language"), on="item_id")
        .drop_nulls("character_error")
        .group_by("language", maintain_order=True)
    ]
    seen = items.filter(pl.col("item_id").is_in(rows["item_id"].implode()))
    captions = whole.filter((pl.col("scenario_id") == COMPLETE) & pl.col("item_id").is_in(seen["item_id"].implode()))
    for language in (None, *seen["language"].unique(maintain_order=True)):
        some = seen if language is None else seen.filter(language=language)
        both = pl.concat([captions, rows]).filter(pl.col("item_id").is_in(some["item_id"].implode()))
        found = measure(both, some)
        position = {} if language is None else {"slice_by": "language", "slice": language}
        for method in METHODS:
            with_ocr, with_caption = (found.auroc[scenario, method] for scenario in (OCR, COMPLETE))
            made.append(figure_row(found.figure(with_ocr), metric=AUROC, of=method, axis="text by OCR", **position))
            lost = found.figure(with_caption - with_ocr)
            made.append(figure_row(lost, metric="ocr_loss", of=method, axis="captions over OCR", **position))
    return figures_output(made)


def measure(predictions: pl.DataFrame, items: pl.DataFrame) -> Measured:
    """Return the scores of each scenario and method over the same draws of templates."""
    groups = items["template"].rank("dense").to_numpy().astype("int64") - 1
    weights = draws_by(groups, draws=RESAMPLES, seed=SEED)
    areas, f1 = {}, {}
    told = items.select("item_id", "label")
    for (scenario, method), some in predictions.group_by("scenario_id", "method", maintain_order=True):
        ordered = told.join(some, on="item_id", how="left", maintain_order="left")
        labels = ordered["label"].to_numpy() == 1
        probability = ordered["probability"].to_numpy()
        said = probability >= ordered["threshold"].to_numpy()
        areas[str(scenario), str(method)] = auroc(probability, labels, weights)
        f1[str(scenario), str(method)] = weighted_f1(said, labels, weights)
    return Measured(areas, f1, items.height, int(groups.max()) + 1)


def _share(pair: tuple[str, float]) -> float:
    return -pair[1]


def _curve(found: Measured, modality: str, steps: list[tuple[str, float]]) -> Iterator[dict[str, object]]:
    import numpy as np

    axis = f"{modality} missing"
    shares = np.array([share for _, share in steps])
    lines = {method: np.stack([found.auroc[name, method] for name, _ in steps]) for method in METHODS}
    for position, (name, share) in enumerate(steps):
        at = {"slice_by": f"{modality} present", "slice": f"{100 * share:.0f} %"}
        for method in METHODS:
            values = found.figure(found.auroc[name, method])
            yield figure_row(values, metric=AUROC, of=method, axis=axis, **at)
            yield figure_row(found.figure(found.f1[name, method]), metric=MACRO_F1, of=method, axis=axis, **at)
            if method != SHARED:
                gain = found.figure(lines[SHARED][position] - lines[method][position])
                yield figure_row(gain, metric=GAIN, of=SHARED, axis=f"over {method}, {axis}", **at)
    width = shares.max() - shares.min()
    for method, line in lines.items():
        area = -np.trapezoid(line, shares, axis=0) / width  # shares fall
        yield figure_row(found.figure(area), metric=AREA, of=method, axis=axis)
        yield figure_row(found.figure(line[0] - line[-1]), metric=DROP, of=method, axis=axis)
        if method == SHARED:
            continue
        over = -np.trapezoid(lines[SHARED] - line, shares, axis=0) / width
        yield figure_row(found.figure(over), metric=f"{AREA}_gain", of=SHARED, axis=f"over {method}, {axis}")
        ahead = lines[SHARED][:, 0] > line[:, 0]
        cross = np.flatnonzero(ahead != ahead[0])
        where = Figure(value=float(shares[cross[0]]), rows=found.items) if len(cross) else None
        none = Figure(undefined="one is ahead at every share", rows=found.items)
        yield figure_row(where or none, metric=CROSSOVER, of=SHARED, axis=f"against {method}, {axis}")

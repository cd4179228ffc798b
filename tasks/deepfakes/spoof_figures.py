"""How well each variant tells real from fake: by held-out generator, with its range over held-out speakers.

Intervals resample whole sources: a recording, its pieces and the fakes made from it stay together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media.deepfake_tables import REAL
from normloom.steps.step import step
from normloom.tasks.metrics.drawn_errors import drawn_errors
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output, too_few
from normloom.tasks.metrics.mean import RESAMPLES, SEED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

EER, AUC, ACCURACY = "eer", "auc", "accuracy"
LEAST, MOST, GAIN = "eer_least", "eer_most", "eer_gain"
GENERATOR, FOLD = "generator", "generator and speakers"


@dataclass(frozen=True)
class Measured:
    """A variant on one held-out generator: measures by fold, (folds, 1 + draws); the first of all items."""

    values: Mapping[str, Array]
    folds: tuple[int, ...]
    rows: tuple[int, ...]


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"), libraries=("numpy",))
def spoof_figures(rows: pl.DataFrame, *, against: str) -> Output:
    """Return EER, AUC and accuracy of each variant, over all and by held-out generator, and its gain in EER.

    A figure of a generator is the mean over the held-out speakers, `eer_least` and `eer_most` their range; over all it
    is the mean over generators. The gain is the EER of the variant `against` less that of the variant, on the same
    draws: an interval that covers 0 is no finding.
    """
    import numpy as np

    sources = rows["source_item"].unique().sort()
    place = dict(zip(sources, range(len(sources)), strict=True))
    times = np.ones((1 + RESAMPLES, len(sources)), np.int16)
    times[1:] = np.random.default_rng(SEED).multinomial(
        len(sources), np.full(len(sources), 1 / len(sources)), RESAMPLES
    )
    found: dict[str, dict[str, Measured]] = {}
    for (variant, generator), some in rows.sort("variant", "held_out", "fold", "item_id").group_by(
        "variant", "held_out", maintain_order=True
    ):
        found.setdefault(str(variant), {})[str(generator)] = _measured(some, place, times)
    made = [row for variant in found for row in _of(variant, found, against, len(sources))]
    return figures_output(made)


def _measured(rows: pl.DataFrame, place: Mapping[str, int], times: npt.NDArray[np.int16]) -> Measured:
    import numpy as np

    values: dict[str, list[Array]] = {EER: [], AUC: [], ACCURACY: []}
    folds, counts = [], []
    for (fold,), some in rows.group_by("fold", maintain_order=True):
        units = some["source_item"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        score = some["score"].to_numpy()
        drawn = drawn_errors(
            score, (some["label"] == REAL).to_numpy(), score > some["threshold"].to_numpy(), times[:, units]
        )
        for name, told in zip(values, drawn, strict=True):
            values[name].append(told)
        folds.append(int(str(fold)))
        counts.append(some.height)
    return Measured({name: np.stack(told) for name, told in values.items()}, tuple(folds), tuple(counts))


def _of(
    variant: str, found: Mapping[str, Mapping[str, Measured]], against: str, sources: int
) -> Iterator[dict[str, object]]:
    import numpy as np

    by_generator = found[variant]
    whole = sum(sum(one.rows) for one in by_generator.values())
    means = {
        generator: {name: values.mean(0) for name, values in one.values.items()}
        for generator, one in by_generator.items()
    }
    for name in (EER, AUC, ACCURACY):
        over_all = np.mean([means[generator][name] for generator in means], axis=0)
        yield figure_row(_figure(over_all, whole, sources), metric=name, of=variant)
    for generator, one in by_generator.items():
        at = {"slice_by": GENERATOR, "slice": generator}
        for name in (EER, AUC, ACCURACY):
            figure = _figure(means[generator][name], sum(one.rows), sources, spread=one.values[name][:, 0])
            yield figure_row(figure, metric=name, of=variant, **at)
        rates = one.values[EER][:, 0]
        for name, rate in ((LEAST, rates.min()), (MOST, rates.max())):
            yield figure_row(Figure(value=float(rate), rows=sum(one.rows)), metric=name, of=variant, **at)
        for fold, count, drawn in zip(one.folds, one.rows, one.values[EER], strict=True):
            at_fold = {"slice_by": FOLD, "slice": f"{generator}, fold {fold}"}
            yield figure_row(_figure(drawn, count, sources), metric=EER, of=variant, **at_fold)
    if variant == against or against not in found:
        return
    gains = {
        generator: found[against][generator].values[EER].mean(0) - means[generator][EER]
        for generator in means
        if generator in found[against]
    }
    axis = f"over {against}"
    over_all = np.mean(list(gains.values()), axis=0)
    yield figure_row(_figure(over_all, whole, sources), metric=GAIN, of=variant, axis=axis)
    for generator, gain in gains.items():
        at = {"slice_by": GENERATOR, "slice": generator}
        rows = sum(by_generator[generator].rows)
        yield figure_row(_figure(gain, rows, sources), metric=GAIN, of=variant, axis=axis, **at)


def _figure(values: Array, rows: int, sources: int, *, spread: Array | None = None) -> Figure:
    import numpy as np

    if reason := too_few(sources, "sources"):
        return Figure(undefined=reason, rows=rows)
    drawn = values[1:][np.isfinite(values[1:])]  # a draw may lack fakes; the rows themselves have some (`held_out`)
    low, high = np.quantile(drawn, [0.025, 0.975])
    deviation = float(spread.std(ddof=1)) if spread is not None and len(spread) > 1 else None
    return Figure(value=float(values[0]), low=float(low), high=float(high), spread=deviation, rows=rows)

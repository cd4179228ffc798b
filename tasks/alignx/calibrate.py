"""Fit the calibrators on development rows alone, and calibrate the router's probabilities with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import each, free
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training import alignx_tables, routing_tables
from normloom.schemas.training.alignx_tables import DEV
from normloom.schemas.training.routing_tables import GLOBAL, LOCAL
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.alignx.states import axes_of, ordered, plain_states

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

BINS = 10


class Calibrating(Args):
    """How temperatures are fitted: the natural one for all rows, fractal ones by neighbourhood."""

    neighbours: int = Field(32, ge=1, description="development rows in a neighbourhood (k of the paper)")
    strength: float = Field(8.0, ge=0, description="weight of the global temperature in a neighbourhood's")


@step(
    makes=routing_tables.CALIBRATORS,
    files="calibrators",
    libraries=("numpy", "safetensors"),
    fan_out=free("the global temperature, and one for each neighbourhood"),
)
def calibrators(rows: pl.DataFrame, args: Calibrating, states: pl.DataFrame, *, run: Run) -> Output:
    """Fit the global temperature, and what neighbourhoods are fitted to, on the development rows.

    `rows` are what the router says (`weighed`); no other split is looked at. A temperature that would raise the
    expected calibration error of the development rows is not taken: the global one is then 1, and neighbourhoods have
    the global one (those of a row are fitted without the row itself). Raises StageError without development rows.
    """
    import numpy as np

    from normloom.models.routing.calibrators import Calibrators, fitted_temperature, tempered

    own = rows.filter(split=DEV).sort("prompt_id")
    if own.is_empty():
        raise StageError("there are no development rows to fit temperatures to: raise source.dev_share")
    told = np.array(own["log_probabilities"].to_list())
    labels = np.array(ordered(own["axis"].to_list(), axes_of(rows)), dtype=np.int64)
    before = calibration_error(tempered(told, 1.0), labels)
    natural = float(fitted_temperature(told, labels))
    if calibration_error(tempered(told, natural), labels) > before:
        natural = 1.0
    after = calibration_error(tempered(told, natural), labels)
    vectors = plain_states(own, states)
    made = Calibrators(natural, vectors, told, labels, neighbours=args.neighbours, strength=args.strength)
    fractal = made.local(vectors, leaving_out_self=True)
    near = calibration_error(tempered(told, fractal), labels)
    if near > before:
        made = Calibrators(natural, vectors, told, labels, neighbours=args.neighbours, strength=HELD)
        fractal, near = made.local(vectors, leaving_out_self=True), after
    made.save(run.files)
    whole = {"parents": own["row_id"].to_list(), "content": GLOBAL, "kind": GLOBAL, "neighbourhood": None}
    lines = [{**whole, "temperature": natural, "ece_before": before, "ece_after": after, "rows": own.height}]
    lines += [
        {
            "parents": [row_id],
            "content": LOCAL,
            "kind": LOCAL,
            "neighbourhood": prompt_id,
            "temperature": temperature,
            "ece_before": before,
            "ece_after": near,
            "rows": min(args.neighbours, own.height - 1),
        }
        for row_id, prompt_id, temperature in zip(own["row_id"], own["prompt_id"], fractal.tolist(), strict=True)
    ]
    frame = pl.DataFrame(lines, schema=tables.named_by_content(routing_tables.CALIBRATORS))
    return Output(rows=frame, attempts=frame.height)


HELD = 1e9  # a strength that leaves nothing of the neighbours


@step(makes=alignx_tables.ROUTED, name="routed", libraries=("numpy", "safetensors"), fan_out=each())
def calibrate(rows: pl.DataFrame, states: pl.DataFrame, *, calibrators: ProductFiles) -> pl.DataFrame:
    """Return the router's probabilities of each prompt: as they are, by one temperature, by its neighbourhood's.

    A development row is no neighbour of itself.
    """
    import numpy as np

    from normloom.models.routing.calibrators import Calibrators, tempered

    fitted = Calibrators.load(calibrators.path)
    told = np.array(rows["log_probabilities"].to_list())
    vectors = plain_states(rows, states)
    local = fitted.local(vectors)
    own = rows.with_row_index().filter(split=DEV).sort("prompt_id")["index"].to_numpy()
    if len(own) == len(fitted.labels):
        local[own] = fitted.local(fitted.states, leaving_out_self=True)
    columns = {
        "probabilities": tempered(told, 1.0),
        "calibrated_global": tempered(told, fitted.temperature),
        "calibrated_local": tempered(told, local),
    }
    series = [pl.Series(name, values.tolist(), dtype=pl.List(pl.Float64)) for name, values in columns.items()]
    return rows.select("row_id", "prompt_id", "split", "axis", *series)


def calibration_error(probabilities: Array, labels: npt.NDArray[np.int64]) -> float:
    """Return the expected calibration error of the likeliest answers, in ten bins of equal width (Guo et al. 2017)."""
    import numpy as np

    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    apart = np.bincount(place, right - confidence, minlength=BINS)
    return float(np.abs(apart).sum() / len(labels))

"""What each stage takes for one item: measured on a few items, in the process that holds the encoders."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from normloom.core.fan_out import free
from normloom.core.models.product_model import ProductFiles
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output
from normloom.readers.media import MediaFolder
from normloom.schemas import tables
from normloom.steps.step import step
from normloom.tasks.deepfakes.aligners import view_matrices
from normloom.tasks.deepfakes.held_out import held_out, parts
from normloom.tasks.deepfakes.refiners import FULL, Refining
from normloom.tasks.deepfakes.scores import loaded
from normloom.tasks.media.encode import embedded_video
from normloom.tasks.media.fitted import one_thread
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output

if TYPE_CHECKING:
    from normloom.tasks.deepfakes.networks import Scorer

ITEMS = 20  # that each stage is timed on, one at a time
P50, P95, PEAK = "p50_ms", "p95_ms", "peak_mb"


@step(
    makes=tables.FIGURES,
    name="cost",
    fan_out=free("one row for each figure"),
    libraries=("torch", "transformers", "safetensors", "numpy", "pillow", "av", "soundfile", "scipy"),
)
def cost(
    rows: pl.DataFrame,
    args: Refining,
    *vectors: pl.DataFrame,
    model: Mapping[str, Any],
    views: tuple[str, ...],
    frames: tuple[str, ...],
    media: ProductFiles,
    fits: ProductFiles,
    refiner: ModelSpec | None = None,
) -> Output:
    """Return the median and 95th percentile of milliseconds of an item in each stage, and the peak memory in MB.

    `frames` are the views of frames, the others hear. Stages: `encode_VIEW` from stored bytes to a vector, `align`,
    `refine` (with the classifier). The memory is the highest that the process held until the end of the stage. Figures
    differ from run to run and from machine to machine.
    """
    import torch

    from normloom.tasks.deepfakes.networks import tensors

    some = rows.head(ITEMS)
    folder = MediaFolder(media.path)
    media_bytes = [folder.read(row) for row in some.iter_rows(named=True)]
    made = []
    for view in views:
        made += _figures(f"encode_{view}", [_encode(model[view], data, view in frames) for data in media_bytes])
    matrices = view_matrices(rows, views, vectors)
    held = held_out(rows)[0]
    network = loaded(fits, FULL, held, tensors(matrices, parts(rows, held).learn), args, refiner)
    every = [tensors(matrices, slice(number, number + 1)) for number in range(some.height)]
    with one_thread(), torch.inference_mode():
        aligned = [network.aligner(one) for one in every]
        made += _figures("align", [partial(network.aligner, one) for one in every])
        made += _figures("refine", [partial(_judged, network, one) for one in aligned])
    return figures_output(made)


def _encode(model: Any, data: bytes, looks: bool) -> Callable[[], Any]:  # noqa: FBT001  # of two
    return partial(embedded_video, model, data) if looks else partial(model.embed_sounds, [data])


def _judged(network: Scorer, aligned: Any) -> Any:
    return network.classify(network.refine(aligned)[1])


def _figures(stage: str, calls: list[Callable[[], Any]]) -> list[dict[str, object]]:
    import numpy as np

    calls[0]()  # what is loaded at the first call is no cost of an item
    taken = []
    for call in calls:
        begun = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begun))
    p50, p95 = np.quantile(taken, [0.5, 0.95])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux
    return [
        figure_row(Figure(value=float(value), rows=len(taken)), metric=metric, of=stage)
        for metric, value in ((P50, p50), (P95, p95), (PEAK, peak))
    ]

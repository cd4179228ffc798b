"""What the head and its adapter say of each meme, in each variant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import each
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.schemas.media import meme_tables
from normloom.schemas.media.meme_tables import ADAPTER, HEAD, METHODS, VARIANTS
from normloom.steps.step import step
from normloom.tasks.cross_align.training.adapter import load_adapter
from normloom.tasks.cross_align.training.hard_pairs import matrix
from normloom.tasks.cross_align.variants import vectors_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@step(
    makes=meme_tables.VERDICTS,
    libraries=("torch", "safetensors", "numpy"),
    fan_out=each(len(VARIANTS) * len(METHODS)),
)
def verdicts(rows: pl.DataFrame, vectors: pl.DataFrame, *, adapters: ProductFiles) -> Output:
    """Return the likeliest class of each meme by the head alone and by its adapter, in each variant."""
    made = []
    for (task,), memes in rows.group_by("task", maintain_order=True):
        for variant in VARIANTS:
            unit = matrix(vectors_of(memes["meme_id"], vectors, variant))
            for method in METHODS:
                classes, chances = judged(adapters.path, str(task), variant, unit, method=method)
                made.append(
                    memes.select(
                        "row_id",
                        "meme_id",
                        "task",
                        "split",
                        "label",
                        variant=pl.lit(variant),
                        method=pl.lit(method),
                        label_hat=pl.Series([classes[best] for best in chances.argmax(axis=1)], dtype=pl.String),
                        probability=pl.Series(chances.max(axis=1)),
                        content=pl.lit(f"{variant}:{method}"),
                    )
                )
    frame = pl.concat(made)
    return Output(rows=frame, attempts=frame.height)


def judged(
    folder: Path, task: str, variant: str, unit: npt.NDArray[np.float32], *, method: str = ADAPTER
) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Return the classes of a task, and the probability of each for each unit vector, (rows, classes)."""
    import torch

    from normloom.tasks.cross_align.training.head import probabilities

    trained = load_adapter(folder, task, variant)
    given = torch.from_numpy(unit)
    with torch.inference_mode():
        logits = trained.head.plain(given) if method == HEAD else trained.head(given)
    chances: npt.NDArray[np.float64] = probabilities(logits)
    return trained.classes, chances

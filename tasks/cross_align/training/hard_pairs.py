"""Hard pairs: for each training meme the nearest of its class and the nearest of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from normloom.core.errors import StageError
from normloom.core.fan_out import each
from normloom.core.stage import Output, dropped_rows
from normloom.schemas.media import meme_tables
from normloom.schemas.media.meme_tables import NEAR_TEST, TRAIN, VARIANTS
from normloom.steps.step import step
from normloom.tasks.cross_align.variants import vectors_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CLASSES = 2  # of a task, at least
_FAR = 4.0  # more than two cosines can be apart
_BLOCK = 1_024  # memes compared with all others at once


@step(
    makes=meme_tables.HARD_PAIRS,
    libraries=("numpy",),
    fan_out=each(pl.when(pl.col("split") == TRAIN).then(len(VARIANTS)).otherwise(0), by_part=True),
)
def hard_pairs(rows: pl.DataFrame, vectors: pl.DataFrame) -> Output:
    """Return the hard pairs of each training meme in each variant, within its task.

    A meme that is the only one of its class is dropped as `no_positive`. Raises StageError for a task that has no
    training memes of two classes.
    """
    made, lone = [], []
    for (task,), memes in rows.group_by("task", maintain_order=True):
        group = memes.filter(split=TRAIN)
        labels = group["label"].to_numpy()
        if group["label"].n_unique() < _CLASSES:
            near = memes.filter(split=NEAR_TEST).height
            raise StageError(
                f"task {task!r}: its {group.height} training memes have {group['label'].n_unique()} class, expected "
                f"at least {_CLASSES}; {near} more nearly repeat memes of other splits"
            )
        for variant in VARIANTS:
            unit = matrix(vectors_of(group["meme_id"], vectors, variant))
            positive, negative, distance = nearest(unit, labels)
            told = group.select(
                "row_id",
                "meme_id",
                "task",
                variant=pl.lit(variant),
                anchor="meme_id",
                positive=group["meme_id"].gather(pl.Series(positive).clip(0)),
                negative=group["meme_id"].gather(pl.Series(negative)),
                distance=pl.Series(distance),
                content=pl.lit(variant),
            )
            alone = pl.Series(positive < 0)
            made.append(told.filter(~alone).drop("meme_id"))
            lone.append(told.filter(alone))
    found = pl.concat(made)
    return Output(
        rows=found,
        dropped=dropped_rows(pl.concat(lone), reason="no_positive"),
        attempts=found.height + sum(one.height for one in lone),
    )


def nearest(
    unit: npt.NDArray[np.float32], labels: npt.NDArray[np.object_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return for each row the nearest other one of its class (-1 if there is none), the nearest of another, and its
    distance.

    `unit` are unit vectors (rows, width); of equally near rows the first is taken.
    """
    import numpy as np

    positive, negative = np.full(len(unit), -1), np.zeros(len(unit), dtype=np.int64)
    distance = np.zeros(len(unit))
    for start in range(0, len(unit), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(unit)))
        near = (unit[rows] @ unit.T).astype(np.float64)
        alike = labels[rows][:, None] == labels[None]
        other = np.where(alike, near - _FAR, near)
        negative[rows] = other.argmax(axis=1)
        distance[rows] = 1 - near[np.arange(len(rows)), negative[rows]]
        own = alike.copy()
        own[np.arange(len(rows)), rows] = False
        best = np.where(own, near, near - _FAR).argmax(axis=1)
        positive[rows] = np.where(own.any(axis=1), best, -1)
    return positive, negative, distance


def matrix(vectors: pl.Series) -> npt.NDArray[np.float32]:
    """Return vectors as unit rows (memes, width). Raises StageError for one that is missing or of another width."""
    import numpy as np

    widths = vectors.list.len().unique().to_list()
    if len(widths) != 1 or widths[0] is None:
        raise StageError(f"vectors have {widths} numbers: expected one width for all memes")
    rows = np.array(vectors.to_list(), dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = rows / np.maximum(lengths, 1e-12)
    return unit

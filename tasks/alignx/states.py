"""States of prompts as matrices, and the task vector of each axis: what its principle does to the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training import routing_tables
from normloom.schemas.training.alignx_tables import TRAIN
from normloom.schemas.training.routing_tables import INJECTED, PLAIN
from normloom.steps.step import step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@step(makes=routing_tables.TASK_VECTORS, libraries=("numpy",), fan_out=free("one row for each axis"))
def task_vectors(rows: pl.DataFrame, states: pl.DataFrame) -> Output:
    """Return the mean over the training prompts of each axis of the state injected minus plain.

    `rows` are the injected prompts, `states` their vectors. Raises StageError for an axis whose principle changes no
    state.
    """
    import numpy as np

    made, vectors = [], []
    for axis in axes_of(rows):
        own = rows.filter((pl.col("axis") == axis) & (pl.col("split") == TRAIN)).sort("prompt_id")
        moved = _states(own, states, INJECTED) - _states(own, states, PLAIN)
        vector = moved.mean(0)
        if not (norm := float(np.linalg.norm(vector))):
            raise StageError(f"axis {axis!r}: its principle changes no state, so it has no task vector")
        vectors.append(vector / norm)
        made.append(
            {
                "parents": own.filter(variant=PLAIN)["row_id"].to_list(),
                "content": axis,
                "axis": axis,
                "vector": vector.tolist(),
                "norm": norm,
                "prompts": len(moved),
            }
        )
    cosines = np.stack(vectors) @ np.stack(vectors).T
    for row, line in zip(made, cosines.tolist(), strict=True):
        row["cosines"] = line
    frame = pl.DataFrame(made, schema=tables.named_by_content(routing_tables.TASK_VECTORS))
    return Output(rows=frame, attempts=frame.height)


def axes_of(rows: pl.DataFrame) -> tuple[str, ...]:
    """Return the axes in alphabetical order, as lists of probabilities have them."""
    return tuple(sorted(rows["axis"].unique()))


def plain_states(rows: pl.DataFrame, states: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Return the states of plain prompts in the order of rows with `prompt_id`, (rows, width)."""
    return _matrix(rows.select(item_id=pl.format("{}:{}", "prompt_id", pl.lit(PLAIN))), states)


def ordered(values: Sequence[str], axes: Sequence[str]) -> list[int]:
    """Return the place of each axis among all."""
    return [axes.index(one) for one in values]


def _states(rows: pl.DataFrame, states: pl.DataFrame, variant: str) -> npt.NDArray[np.float32]:
    return _matrix(rows.filter(variant=variant), states)


def _matrix(rows: pl.DataFrame, states: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Return the states of items in their order; the same prompt may be of several axes, so states may be equal."""
    import numpy as np

    joined = rows.select("item_id").join(states, on="item_id", how="left", maintain_order="left")
    if lost := joined["vector"].null_count():
        raise StageError(f"{lost} of {rows.height} prompts have no state")
    return np.array(joined["vector"].to_list(), dtype=np.float32)

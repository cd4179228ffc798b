"""Small networks trained one after the other: what a killed run has finished is not trained again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from normloom.core.errors import StageError
from normloom.core.run import Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    from torch import nn

Curve = list[dict[str, Any]]


def file_name(network: str, *held: str | int) -> str:
    """Return the name of a trained network's file; what was held out may have any name."""
    return f"{'-'.join(quote(str(part), safe='') for part in (network, *held))}.safetensors"


def fitted(weights: Path, train: Callable[[], tuple[nn.Module, Curve]]) -> Curve:
    """Train a network, unless its `weights` are there already, and return its curve."""
    from safetensors.torch import save_file

    told = weights.with_suffix(".json")
    if told.is_file() and weights.is_file():
        curve: Curve = json.loads(told.read_text())
        return curve
    network, curve = train()
    save_file({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, weights)
    draft = told.with_suffix(".tmp")
    draft.write_text(json.dumps(curve))
    os.replace(draft, told)  # noqa: PTH105  # its being there says that the weights are whole
    return curve


def keep_files(run: Run) -> None:
    """Make the weights in the scratch folder the files of the product."""
    for path in run.scratch.glob("*.safetensors"):
        shutil.copyfile(path, run.files / path.name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: networks as small as these are slower with more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def matrix_of(rows: pl.DataFrame, table: pl.DataFrame, name: str) -> npt.NDArray[np.float32]:
    """Return the vectors of items in their order, (items, width) float32.

    Raises StageError for an item without one, for vectors of unequal width, and if all are the same (C12).
    """
    import numpy as np

    joined = rows.select("item_id").join(table, on="item_id", how="left", maintain_order="left")
    if lost := joined["vector"].null_count():
        raise StageError(f"{lost} of {rows.height} items have no vector of their {name}")
    widths = joined["vector"].list.len().unique().to_list()
    if len(widths) != 1:
        raise StageError(f"vectors of {name} have {sorted(widths)} numbers: expected one width")
    matrix = np.array(joined["vector"].to_list(), dtype=np.float32)
    if len(matrix) > 1 and not (matrix != matrix[0]).any():
        raise StageError(f"all vectors of {name} are the same: the encoder {joined['encoder'][0]!r} reads nothing")
    return matrix

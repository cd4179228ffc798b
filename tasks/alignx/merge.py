"""The experts as one adapter: their task vectors, the changes of weights, added by weight (task arithmetic)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import StageError
from normloom.core.fan_out import free
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.training import routing_tables
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.tuning.lora import ADAPTER, CONFIG, FOLDER

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


class Merging(Args):
    """How the experts are merged into one (task arithmetic, Ilharco et al. 2023, arXiv 2212.04089)."""

    scale: float = Field(1.0, gt=0, description="weight of each task vector in their sum; theirs is tuned, ours is not")


@step(
    makes=routing_tables.MERGED_ADAPTERS,
    files=FOLDER,
    libraries=("torch", "safetensors"),
    fan_out=free("one row for each expert"),
)
def merge(rows: pl.DataFrame, *, experts: RolesSpec, weight: float, run: Run) -> Output:
    """Add up the experts, each with the same weight; `rows` are their curves.

    The sum of w s B A over experts is one LoRA adapter of all their ranks: the A stacked, the B side by side, scaled by
    w s. Raises StageError for experts of different layers.
    """
    import torch
    from safetensors.torch import save_file

    axes = rows["axis"].unique(maintain_order=True).to_list()
    loaded = {axis: _loaded(_path(experts, axis)) for axis in axes}
    layers = {name.removesuffix(_DOWN) for parts, _ in loaded.values() for name in parts if name.endswith(_DOWN)}
    merged: dict[str, Any] = {}
    norms = dict.fromkeys(axes, 0.0)
    for layer in sorted(layers):
        downs, ups = [], []
        for axis, (parts, alpha) in loaded.items():
            if layer + _DOWN not in parts:
                raise StageError(f"the expert of axis {axis!r} does not change {layer}, and others do: not merged")
            down, up = parts[layer + _DOWN], parts[layer + _UP]
            scaled = up * (alpha / len(down))
            norms[axis] += float((scaled @ down).square().sum())
            downs.append(down)
            ups.append(scaled * weight)
        merged[layer + _DOWN], merged[layer + _UP] = torch.cat(downs).contiguous(), torch.cat(ups, dim=1).contiguous()
    save_file(merged, run.files / ADAPTER, metadata={"format": "pt"})
    ranks = [len(value) for name, value in merged.items() if name.endswith(_DOWN)]
    config = json.loads((_path(experts, axes[0]) / CONFIG).read_text(encoding="utf-8"))
    config |= {"r": max(ranks), "lora_alpha": max(ranks)}
    (run.files / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    made = [
        {
            "parents": [],
            "content": axis,
            "axis": axis,
            "weight": weight,
            "rank": max(len(value) for name, value in loaded[axis][0].items() if name.endswith(_DOWN)),
            "norm": norms[axis] ** 0.5,
        }
        for axis in axes
    ]
    frame = pl.DataFrame(made, schema=tables.named_by_content(routing_tables.MERGED_ADAPTERS))
    return Output(rows=frame, attempts=frame.height)


def _path(experts: RolesSpec, axis: str) -> Path:
    files = experts.roles[axis]
    if not isinstance(files, ProductFiles):
        raise TypeError(f"expert of {axis!r}: the files of a product are expected, got {files!r}")
    return files.path


def _loaded(folder: Path) -> tuple[dict[str, Any], float]:
    """Return the tensors of an adapter in float32, and its alpha."""
    from safetensors.torch import load_file

    alpha = float(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["lora_alpha"])
    return {name: value.float() for name, value in load_file(folder / ADAPTER).items()}, alpha

"""LoRA adapters added to one model by weight, another weight for each row of a batch: W x + sum of w_k s_k B_k A_k x.

The base is not modified: each layer's adapters are applied as a separate term during a pass that uses them. They are
stacked, so any number of adapters costs two matrix products.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from normloom.core.errors import ModelError
from normloom.models.product_files import ADAPTER

_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_BY_ROW = 3  # dimensions of a layer's input: rows, columns, width


@dataclass(frozen=True)
class _Layer:
    """The adapters of one layer, stacked: `down` (ranks, in), `up` (out, ranks) scaled, `expert` of each rank."""

    module: torch.nn.Module
    down: torch.Tensor
    up: torch.Tensor
    expert: torch.Tensor


class Adapters:
    """LoRA adapters of a model, by the layers that they change. Raises ModelError for one that is not plain LoRA."""

    def __init__(self, model: Any, folders: Sequence[Path]) -> None:
        modules = dict(model.named_modules())
        found: dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]] = {}
        for number, folder in enumerate(folders):
            for name, down, up in _layers(folder):
                if name not in modules:
                    raise ModelError(f"adapter {folder} changes the layer {name}, which the model lacks")
                found.setdefault(name, []).append((number, down, up))
        self._layers = [_stacked(modules[name], parts, model.device) for name, parts in found.items()]

    @contextmanager
    def added(self, weights: torch.Tensor) -> Iterator[None]:
        """Add the adapters to each pass until the end: `weights` are (adapters,) for all rows, or (rows, adapters).

        They lie on the device of the model.
        """
        with ExitStack() as hooks:
            for layer in self._layers:
                spread = weights[..., layer.expert]  # (..., ranks)
                shaped = spread[:, None, :] if spread.dim() > 1 else spread
                hook = layer.module.register_forward_hook(partial(_add, layer.down, layer.up, shaped))
                hooks.callback(hook.remove)
            yield


@dataclass(frozen=True)
class Mixture:
    """Adapters with their weights, float32: (adapters,) for all requests alike, or (requests, adapters)."""

    adapters: Adapters
    weights: torch.Tensor

    @property
    def alike(self) -> bool:
        """Whether all requests have the same weights, so that what they share is read once for all."""
        return self.weights.dim() == 1

    @contextmanager
    def added(self, requests: Sequence[int] | None) -> Iterator[None]:
        """Add the adapters to a pass over one row for each of these requests."""
        if not self.alike and requests is None:
            raise ModelError("adapters are mixed by request, and this is asked of all requests at once")
        with self.adapters.added(self.weights if self.alike else self.weights[list(requests or ())]):
            yield


def _layers(folder: Path) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield the name of each layer that an adapter changes, with A (rank, in) and B (out, rank) times its scale."""
    config = _config(folder)
    try:
        tensors = load_file(folder / ADAPTER[1])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter {folder / ADAPTER[1]} cannot be read: {error}") from error
    foreign = [name for name in tensors if not name.endswith((_DOWN, _UP))]
    if foreign:
        raise ModelError(f"adapter {folder} is not plain LoRA: it holds {foreign[0]}")
    for name in tensors:
        if name.endswith(_DOWN):
            layer = name.removesuffix(_DOWN)
            down, up = tensors[name].float(), tensors[layer + _UP].float()
            rank = len(down)
            scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
            yield layer.removeprefix(_PREFIX), down, up * scale


def _config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER[0]
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        alpha = float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not describe a LoRA adapter: {error!r}") from error
    unknown = [name for name in ("use_dora", "alpha_pattern", "layer_replication") if config.get(name)]
    if unknown:
        raise ModelError(f"adapter {folder} is not plain LoRA: {unknown[0]} is set; engine transformers adds A and B")
    return {**config, "lora_alpha": alpha}


def _stacked(module: torch.nn.Module, parts: Sequence[tuple[int, torch.Tensor, torch.Tensor]], device: Any) -> _Layer:
    expert = torch.cat([torch.full((len(down),), number) for number, down, _ in parts])
    down, up = torch.cat([down for _, down, _ in parts]), torch.cat([up for _, _, up in parts], dim=1)
    return _Layer(module, down.to(device), up.to(device), expert.to(device))


def _add(
    down: torch.Tensor, up: torch.Tensor, spread: torch.Tensor, module: torch.nn.Module, given: Any, made: torch.Tensor
) -> torch.Tensor:
    """Return what a layer made, and what its adapters make of the same input in float32, as PEFT does."""
    (states,) = given
    if spread.dim() == _BY_ROW and (states.dim() != _BY_ROW or len(states) != len(spread)):
        raise ModelError(
            f"the model gives its layer {type(module).__name__} an input of shape {tuple(states.shape)}, not one line "
            f"for each of {len(spread)} rows: its adapters cannot be mixed by request"
        )
    added = (states.float() @ down.T * spread) @ up.T
    both: torch.Tensor = (made + added).to(made.dtype)
    return both

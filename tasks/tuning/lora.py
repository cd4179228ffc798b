"""The adapter that is trained, and how it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from normloom.core.errors import ConfigError
from normloom.steps.args import Args

FOLDER = "adapter"
ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Lora(Args):
    """The adapter that is trained (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, description="rank of the update")
    alpha: float = Field(16, gt=0, description="scale of the update, over its rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs of the adapter that is dropped")
    modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="layers that have an adapter, by name"
    )
    last_layers: int | None = Field(None, ge=1, description="blocks at the end of the model that have it; null: all")


def lora_config(lora: Lora, model: Any) -> Any:
    """Return PEFT's description of the adapter for a causal model."""
    from peft import LoraConfig

    blocks = int(model.config.get_text_config().num_hidden_layers)
    last = None if lora.last_layers is None else list(range(max(blocks - lora.last_layers, 0), blocks))
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.modules),
        layers_to_transform=last,
        task_type="CAUSAL_LM",
    )


def trainable(model: Any) -> Any:
    """Return the model; raises ConfigError for one that is quantized."""
    if (method := getattr(model, "quantization_method", None)) is not None:
        raise ConfigError(f"the policy is quantized ({method}) and cannot be trained; name one in float32 or bfloat16")
    return model


def save_adapter(model: Any, folder: Path, *, base: str) -> None:
    """Write the adapter as safetensors with its configuration, and nothing that names a path of this machine.

    PEFT writes the names of layers in the order of a set, another one in each process: they are sorted here, so that
    the same training leaves the same files.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(folder, save_embedding_layers=False)  # or it looks at the hub for the base
    for path in folder.iterdir():
        if path.name not in {ADAPTER, CONFIG}:
            path.unlink()
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    (folder / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")

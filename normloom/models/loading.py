"""Loading a model into this process: device, number format, threads, context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import locate

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(kind: Any, spec: ModelSpec, *, threads: int | None) -> Any:
    """Load `spec` with the transformers class `kind`, ready to run without gradients.

    `threads` bounds torch's threads in the whole process. Raises `ModelError` and `ConfigError`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    device = _device(spec)
    return _read(kind, spec, dtype=dtype_of(spec, device)).to(device).eval()


def tokenizer_of(spec: ModelSpec) -> Any:
    """Load the tokenizer of `spec`."""
    return _read(AutoTokenizer, spec)


def context_limit(config: Any, tokenizer: Any, lowered: int | None = None) -> int:
    """Return how many tokens a model with this configuration can attend to; `lowered` takes less."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(min(limit for limit in (stated, tokenizer.model_max_length, lowered) if limit))


def end_tokens(stated: int | list[int] | None, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text: those that the model's configuration states, and the tokenizer's."""
    listed = stated if isinstance(stated, list) else [stated]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


def _read(kind: Any, spec: ModelSpec, **settings: Any) -> Any:
    transformers_logging.disable_progress_bar()  # actors have no terminal; a bar fills their log
    directory: Path = locate(spec)
    try:
        return kind.from_pretrained(directory, local_files_only=True, **settings)
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # for missing, foreign or damaged files
        raise ModelError(f"model {spec.model!r} cannot be loaded from {directory}: {error}") from error


def _device(spec: ModelSpec) -> torch.device:
    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
    except RuntimeError as error:
        raise ConfigError(
            f"model {spec.model!r}: unknown device {spec.device!r}; use auto, cpu, cuda or cuda:N"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"model {spec.model!r}: device {spec.device!r} is requested, but torch sees no GPU; use auto or cpu"
        )
    return device


def dtype_of(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Return the number format that `spec` asks for on a device; raises ConfigError for one that is unknown."""
    if spec.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" or _computes_bfloat16() else torch.float32
    if spec.dtype not in _DTYPES:
        raise ConfigError(f"model {spec.model!r}: unknown dtype {spec.dtype!r}; use auto, {', '.join(_DTYPES)}")
    return _DTYPES[spec.dtype]


def _computes_bfloat16() -> bool:
    """Say whether the processor has bfloat16 arithmetic; without it bfloat16 runs at half the speed of float32."""
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))

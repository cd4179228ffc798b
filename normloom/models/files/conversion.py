"""A GGUF file made once into a directory that transformers loads fast."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from normloom.core.errors import ModelError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.once import made_once
from normloom.models.files.digests import file_digest

_RECIPE = 1  # raise it when this module writes other files from the same GGUF


def converted(gguf: Path) -> Path:
    """Return the directory made of `gguf`, converting it on first use (half a minute, 0.5 GB for 135 M parameters).

    It lies in the cache directory under a name made of the file's digest, so it is never stale; one process converts
    while others wait. Raises `ModelError` for a file that transformers cannot read.
    """
    name = f"{gguf.stem}-{file_digest(gguf)[:16]}-{_RECIPE}"
    return made_once(cache_dir() / "models" / name, lambda draft: _convert(gguf, draft))


def _convert(gguf: Path, target: Path) -> None:
    transformers_logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        # float32 keeps what the file says; rounding to bfloat16 is left to the load, where the processor gains by it.
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise ModelError(
            f"model file {gguf}: transformers cannot read it ({error}); give a directory of safetensors instead"
        ) from error
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)

"""Processors of transformers: what they make of one image or sound, and how prompts name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.models.decoded import pixels_of, samples_of

NO_TOKEN = -1
_WORDS: Mapping[type[Medium], str] = {Image: "image", Sound: "audio"}


def processor_of(directory: Path, name: str) -> Any:
    """Return the processor of a model's media; raises ModelError if it cannot be loaded."""
    try:
        return AutoProcessor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        why = str(error).strip().splitlines()[0]
        raise ModelError(f"model {name!r}: the processor of its images or sounds cannot be loaded: {why}") from error


def mark_of(processor: Any, kind: type[Medium]) -> str | None:
    """Return the text that stands for a medium in what the chat template writes."""
    mark: str | None = getattr(processor, f"{_WORDS[kind]}_token", None)
    return mark


def token_of(config: Any, kind: type[Medium]) -> int:
    """Return the token of the vocabulary that stands for each vector of a medium, NO_TOKEN if none is named."""
    stated = [getattr(config, f"{_WORDS[kind]}_token_{end}", None) for end in ("id", "index")]
    return next((int(one) for one in stated if one is not None), NO_TOKEN)


def processed(processor: Any, medium: Image | Sound, mark: str, **settings: Any) -> Any:
    """Return what a processor makes of one medium, its `input_ids` among it; raises UnreadableError."""
    if isinstance(medium, Image):
        return processor(text=[mark], images=[pixels_of(medium)], add_special_tokens=False, **settings)
    samples = samples_of(medium, rate_of(processor))
    return processor(text=[mark], audio=[samples], add_special_tokens=False, **settings)


def rate_of(processor: Any) -> int:
    """Return how many samples a second a processor takes of a sound."""
    return int(processor.feature_extractor.sampling_rate)

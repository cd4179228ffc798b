"""Processors of transformers: what they make of one image or sound, and how prompts name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoProcessor

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.models.media.decoded import UnreadableError, pixels_of, samples_of

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
    settings |= {"audio": [heard(processor, medium)], "sampling_rate": rate_of(processor)}
    return processor(text=[mark], add_special_tokens=False, **settings)


def require_tokens(ids: Sequence[int], token: int, medium: Medium, *, least: int = 1) -> None:
    """Raise UnreadableError if a processor made fewer than `least` tokens of a medium."""
    if list(ids).count(token) < least:
        raise UnreadableError(f"{medium.kind} {medium.digest} is too small for the model: no token of it is left")


def heard(processor: Any, sound: Sound) -> npt.NDArray[np.float32]:
    """Return a sound at the rate that a processor takes, (frames,).

    Raises UnreadableError for one that cannot be read, or is so long that the processor would cut it.
    """
    rate = rate_of(processor)
    samples, most = samples_of(sound, rate), _longest(processor)
    if most is not None and len(samples) > most * rate:
        raise UnreadableError(
            f"sound {sound.digest} is {len(samples) / rate:.1f} seconds long, and the model takes at most {most:g}: "
            "shorten it"
        )
    return samples


def _longest(processor: Any) -> float | None:
    """Return how many seconds of a sound a processor takes, None if it says nothing; it cuts what is longer."""
    if stated := getattr(processor, "max_audio_len", None):  # in pieces, as Audio Flamingo 3
        piece = float(getattr(processor.feature_extractor, "chunk_length", 1))
        return float(stated) // piece * piece
    samples = getattr(processor.feature_extractor, "n_samples", None)  # of the one piece of Whisper's
    return None if samples is None else samples / rate_of(processor)


def rate_of(processor: Any) -> int:
    """Return how many samples a second a processor takes of a sound."""
    return int(processor.feature_extractor.sampling_rate)

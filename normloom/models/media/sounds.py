"""Vectors of sound: Resemblyzer's speaker encoder from a package, or a model of transformers by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from normloom.core.errors import ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.files.locate import PACKAGED, find, locate
from normloom.models.loading import load
from normloom.models.media.spectral import mel_filters, power_spectrum
from normloom.models.registry import parse_options
from normloom.readers.media import at_rate

RESEMBLYZER = "resemblyzer"
_RATE = 16_000
_MELS, _WIDTH, _FRAMES, _STEP = 40, 256, 160, 77  # of Resemblyzer: frames of a piece, and from one to the next
_LOUDNESS = -30  # dBFS that quiet speech is raised to
_PIECES = 16  # in one pass
Read = Callable[[Iterable[Any]], list[torch.Tensor]]  # samples at 16 kHz of each sound to its vector (dimensions,)


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`: it has none."""

    model_config = ConfigDict(extra="forbid")


class SoundEncoder:
    """A `SoundEmbedder`: `read` turns samples at 16 kHz into vectors."""

    def __init__(self, read: Read) -> None:
        self._read = read

    @torch.inference_mode()
    def embed_sounds(self, sounds: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors, float32, shape (sounds, dimensions)."""
        if not sounds:
            return np.empty((0, 0), np.float32)
        vectors = torch.stack(self._read(at_rate(data, _RATE) for data in sounds))
        unit: np.ndarray = nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
        return unit


def sound_encoder(spec: ModelSpec, *, threads: int | None = None) -> SoundEncoder:
    """Load an encoder of sound: `resemblyzer`, or an id or folder for transformers such as wav2vec 2.0.

    Raises ModelError if it is not there or is not a sound encoder.
    """
    parse_options(Options, spec)
    if threads is not None:
        torch.set_num_threads(threads)
    return SoundEncoder(_resemblyzer() if spec.model == RESEMBLYZER else _transformers(spec, threads))


def _resemblyzer() -> Read:
    """Return the reader of Resemblyzer's weights (generalised end-to-end loss, Wan et al. 2018, arXiv 1710.10467).

    As its own code does it, but for silence, which is not cut out: the package for that needs an old setuptools.
    """
    folder = find(RESEMBLYZER)
    if folder is None:
        raise ModelError(
            f"model {RESEMBLYZER!r} is not installed: pip install --no-deps {PACKAGED[RESEMBLYZER].distribution}"
        )
    recurrent, linear = nn.LSTM(_MELS, _WIDTH, 3, batch_first=True), nn.Linear(_WIDTH, _WIDTH)
    stored = torch.load(folder / "pretrained.pt", weights_only=True, map_location="cpu")["model_state"]
    for name, module in (("lstm", recurrent), ("linear", linear)):
        own = {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}
        module.load_state_dict(own)
        module.eval()

    def pieces_of(samples: Any) -> torch.Tensor:
        level = 10 * np.log10(max(float(np.mean(np.square(samples))), 1e-12))
        louder = samples * 10 ** (max(_LOUDNESS - level, 0) / 20)
        power = power_spectrum(louder, _RATE)
        mels = torch.from_numpy((mel_filters(power.shape[0], _MELS, _RATE).T @ power).T.astype(np.float32))
        mels = nn.functional.pad(mels, (0, 0, 0, max(_FRAMES - len(mels), 0)))
        return mels.unfold(0, _FRAMES, _STEP).transpose(1, 2)

    def spoken(pieces: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = recurrent(pieces)
        return nn.functional.normalize(torch.relu(linear(hidden[-1])), dim=1)

    def read(sounds: Iterable[Any]) -> list[torch.Tensor]:
        vectors: list[torch.Tensor] = []
        for group in _groups(map(pieces_of, sounds)):
            passes = torch.split(torch.cat(group), _PIECES)  # of short sounds one pass takes several
            heard = torch.cat([spoken(pieces) for pieces in passes])
            vectors += [own.mean(0) for own in torch.split(heard, [len(pieces) for pieces in group])]
        return vectors

    return read


def _groups(sounds: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Group sounds in order so that each group but the last has at least as many pieces as one pass takes."""
    group: list[torch.Tensor] = []
    for pieces in sounds:
        group.append(pieces)
        if sum(map(len, group)) >= _PIECES:
            yield group
            group = []
    if group:
        yield group


def _transformers(spec: ModelSpec, threads: int | None) -> Read:
    """Return the reader of a model of transformers: the mean over time of its last states."""
    from transformers import AutoFeatureExtractor, AutoModel

    spec = spec.model_copy(update={"dtype": "float32"}) if spec.dtype == "auto" else spec
    model = load(AutoModel, spec, threads=threads)
    try:
        extractor = AutoFeatureExtractor.from_pretrained(locate(spec), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"model {spec.model!r} is not a sound encoder: {error}") from error

    def vector(samples: Any) -> torch.Tensor:
        inputs = extractor(samples, sampling_rate=_RATE, return_tensors="pt").to(model.device)
        states: torch.Tensor = model(**inputs).last_hidden_state.mean(1).squeeze(0)
        return states

    return lambda sounds: [vector(samples) for samples in sounds]

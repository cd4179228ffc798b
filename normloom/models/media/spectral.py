"""What a sound looks like, without a model: statistics of its spectrum over time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.models.protocol import ModelSpec
from normloom.models.registry import parse_options
from normloom.readers.media import at_rate

Array = npt.NDArray[np.float64]
COEFFICIENTS, BANDS, MELS = 30, 12, 40
DIMENSIONS = 2 * (COEFFICIENTS + BANDS + 1)
_FLOOR = 1e-10
FRAME, HOP = 0.064, 0.016  # seconds


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: int = Field(8_000, ge=4_000)  # that sounds are brought to; what is above half of it is not seen


class SpectralStatistics:
    """A `SoundEmbedder` of 86 numbers: mean and spread over frames of 64 ms, 16 ms apart, of 30 cepstral coefficients
    (MFCC), the mean log power of 12 bands of equal width and spectral flatness. They are no unit vectors.

    Frames are long enough to tell harmonics apart, and bands as fine at the top as at the bottom: vocoders leave their
    traces there.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:  # noqa: ARG002  # it has one
        self.options = parse_options(Options, spec)

    def embed_sounds(self, sounds: Sequence[bytes]) -> np.ndarray:
        """Return statistics, float32, shape (sounds, 86)."""
        rows = [self._statistics(data) for data in sounds]
        return np.array(rows, dtype=np.float32).reshape(len(sounds), DIMENSIONS)

    def _statistics(self, data: bytes) -> Array:
        from scipy.fft import dct

        rate = self.options.sample_rate
        power = power_spectrum(at_rate(data, rate), rate, frame=FRAME, hop=HOP)
        mels = np.log(mel_filters(power.shape[0], MELS, rate).T @ power + _FLOOR)
        cepstrum = dct(mels, axis=0, norm="ortho")[:COEFFICIENTS]
        logs = np.log(power + _FLOOR)
        bands = np.stack([band.mean(0) for band in np.array_split(logs, BANDS)])
        flatness = np.exp(logs.mean(0)) / (power.mean(0) + _FLOOR)
        frames = np.concatenate([cepstrum, bands, flatness[None]])
        return np.concatenate([frames.mean(1), frames.std(1)])


def power_spectrum(samples: Any, rate: int, *, frame: float = 0.025, hop: float = 0.01) -> Array:
    """Return the power of each frequency in each frame, (frequencies, frames); `frame` and `hop` in seconds."""
    from transformers.audio_utils import spectrogram, window_function

    length, step = round(rate * frame), round(rate * hop)
    padded = np.pad(samples, (0, max(length - len(samples), 0)))
    found: Array = spectrogram(
        padded, window_function(length, "hann"), length, step, fft_length=length, power=2.0, pad_mode="constant"
    )
    return found


@lru_cache(maxsize=8)
def mel_filters(frequencies: int, mels: int, rate: int) -> Array:
    """Return triangular filters on Slaney's mel scale, of equal area, (frequencies, mels); as librosa has them."""
    from transformers.audio_utils import mel_filter_bank

    filters: Array = mel_filter_bank(frequencies, mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return filters

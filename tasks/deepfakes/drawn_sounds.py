"""Sounds of our own for the built-in recordings: buzzes with formants, and three ways to fake them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl

from normloom.core.fan_out import free
from normloom.core.rows.ids import seed
from normloom.core.run import Run
from normloom.core.stage import Output
from normloom.readers.media import MediaLimits, Pack, decode
from normloom.schemas import tables
from normloom.schemas.media.deepfake_tables import NO_GENERATOR
from normloom.schemas.media.media_tables import media_contract
from normloom.steps.step import step
from normloom.tasks.media.read_media import media_output, media_row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

KEPT = ("item_id",)
RATE, SECONDS = 8_000, 0.6
_HARMONICS, _WIDTH = 24, 120.0  # of the buzz; Hz of a formant
_JITTER, _BREATH = 0.02, 0.02  # of a voice: unsteady pitch, and noise
_LEVELS = 24  # that a coarse fake has left
_FRAME, _HOP = 200, 50


@step(
    makes=media_contract(KEPT),
    name="media",
    files="media",
    libraries=("numpy", "scipy", "soundfile", "pillow", "av"),
    fan_out=free("one row for each recording"),
)
def draw_sounds(rows: pl.DataFrame, *, run: Run) -> Output:
    """Return a sound for each built-in recording. They prove the machinery and nothing else: no voice sounds so."""
    import soundfile as sf

    made = []
    with Pack(run.files) as pack:
        for row in rows.iter_rows(named=True):
            stream = io.BytesIO()
            sf.write(stream, sound(row["speaker"], row["source_item"], row["generator"]), RATE, format="FLAC")
            origin = f"{row['item_id']}.flac"
            found = media_row(decode(stream.getvalue(), origin, MediaLimits()), pack, origin=origin)
            made.append({**found, "item_id": row["item_id"]})
    output = media_output(made, keep=KEPT)
    parents = pl.Series([[row] for row in rows["row_id"]], dtype=tables.TEXTS)
    return Output(rows=output.rows.with_columns(parents=parents), attempts=len(made))


def sound(speaker: str, source: str, generator: str) -> Array:
    """Return a sound between -1 and 1, (frames,).

    A voice has its own pitch and a word its own formants; pitch wavers and breath is heard. Fakes have no waver and
    little breath; `coarse` has few levels of loudness too, and `scrambled` draws the phase of each frame.
    """
    import numpy as np

    drawing = np.random.default_rng(seed(source, 0))
    voice, word = np.random.default_rng(seed(speaker, 0)), np.random.default_rng(seed(source.rpartition("-")[2], 0))
    frames = round(RATE * SECONDS)
    wavers, breath = (_JITTER, _BREATH) if generator == NO_GENERATOR else (0.0, _BREATH / 4)
    steps = np.repeat(drawing.normal(size=frames // 80 + 1), 80)[:frames]
    phase = 2 * np.pi * np.cumsum(voice.uniform(90, 220) * (1 + wavers * steps)) / RATE
    formants = [word.uniform(low, high) * voice.uniform(0.9, 1.1) for low, high in ((300, 800), (900, 2_000))]
    pitch = float(np.diff(phase).mean() * RATE / (2 * np.pi))
    heights = [
        sum(np.exp(-(((n * pitch - one) / _WIDTH) ** 2)) + 0.05 for one in formants) for n in range(1, _HARMONICS)
    ]
    wave = sum(height * np.sin(n * phase) for n, height in enumerate(heights, start=1) if n * pitch < RATE / 2)
    wave *= np.hanning(frames) / np.abs(wave).max()
    wave += breath * drawing.normal(size=frames)
    if generator == "coarse":
        wave = np.round(wave * _LEVELS) / _LEVELS
    if generator == "scrambled":
        wave = _scrambled(wave, drawing)
    heard: Array = 0.5 * wave / np.abs(wave).max()
    return heard


def _scrambled(wave: Array, drawing: np.random.Generator) -> Array:
    import numpy as np

    window, heard = np.hanning(_FRAME), np.zeros(len(wave))
    for start in range(0, len(wave) - _FRAME, _HOP):
        spectrum = np.abs(np.fft.rfft(wave[start : start + _FRAME] * window))
        turned = spectrum * np.exp(2j * np.pi * drawing.random(len(spectrum)))
        heard[start : start + _FRAME] += np.fft.irfft(turned, _FRAME) * window
    return heard

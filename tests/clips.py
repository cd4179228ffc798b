"""Small videos of our own: moving gratings, with a tone if they are to be heard."""

from __future__ import annotations

import io

import av
import numpy as np

RATE = 16_000  # of the sound


def clip(
    seed: int = 0,
    *,
    seconds: float = 1.0,
    flicker: float = 0.0,
    pitch: float | None = 220.0,
    form: str = "mp4",
    side: int = 64,
) -> bytes:
    """Return a video of 8 frames a second; `flicker` is how much each frame differs from the one before."""
    stream = io.BytesIO()
    drawing = np.random.default_rng(seed)
    with av.open(stream, "w", format=form) as container:
        picture = container.add_stream("libvpx" if form == "webm" else "mpeg4", rate=8)
        picture.width, picture.height, picture.pix_fmt = side, side, "yuv420p"
        sound = container.add_stream("libopus" if form == "webm" else "aac", rate=48_000) if pitch else None
        x = np.linspace(0, 4 * np.pi, side)
        for number in range(round(8 * seconds)):
            levels = 128 + 100 * np.sin(x + 0.3 * number + seed) + flicker * drawing.normal(size=(side, side))
            colours = np.repeat(levels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colours), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        if sound:
            wave = 8_000 * np.sin(2 * np.pi * (pitch or 0) * np.arange(round(48_000 * seconds)) / 48_000)
            samples = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            samples.sample_rate = 48_000
            even = av.AudioResampler(format=sound.format.name, layout=sound.layout.name, rate=48_000)
            for one in even.resample(samples):
                container.mux(sound.encode(one))
            container.mux(sound.encode())
    return stream.getvalue()

"""Videos: what one is, proved by decoding it once, its frames, and its soundtrack. By PyAV, which brings FFmpeg."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import av

_DEMUXERS = {"MP4": "mov", "MKV": "matroska", "AVI": "avi"}  # by name, so that no playlist is followed
_PADDED, _PADDING = 2, 1_000_000  # what a codec may take for a frame, before it is refused
_LATE = 0.5  # seconds that the last frame may end before the stated duration


class Clip(NamedTuple):
    """What a video is; `sample_rate` and `channels` are those of its soundtrack, if it has one.

    `stated` are the seconds that its header promises, None if it promises none.
    """

    width: int
    height: int
    frames: int
    seconds: float
    stated: float | None
    sample_rate: int | None
    channels: int | None

    @property
    def is_cut(self) -> bool:
        """Whether it ends before its header says."""
        return self.stated is not None and self.seconds < self.stated - _LATE


def video_format(data: bytes) -> str | None:
    """Return the format of a video by its first bytes, None for anything else."""
    if data[4:8] == b"ftyp":
        return "MP4"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "MKV"
    return "AVI" if data.startswith(b"RIFF") and data[8:12] == b"AVI " else None


def size_of(data: bytes) -> tuple[int, int, float | None]:
    """Return width, height and stated seconds from the header; nothing is decoded. Raises ValueError."""
    with _opened(data) as container:
        stream = _picture(container)
        return stream.width, stream.height, _stated(container)


def clip_of(data: bytes, *, max_seconds: float, max_pixels: int) -> Clip | None:
    """Decode a video to its end and return what it is, None if it is longer than `max_seconds`.

    Raises ValueError if that cannot be done, and for a frame that is larger than the header lets on.
    """
    with _opened(data) as container:
        stream = _picture(container)
        stream.codec_context.options = {"max_pixels": str(_PADDED * max_pixels + _PADDING)}
        frames, last = 0, 0.0
        rate = float(stream.average_rate or 25)
        for frame in container.decode(stream):
            frames += 1
            if frame.width * frame.height > max_pixels:
                raise ValueError(f"a frame of {frame.width:,} x {frame.height:,} pixels, more than its header says")
            last = max(last, float(frame.time if frame.time is not None else frames / rate))
            if last > max_seconds:
                return None
        sound = container.streams.audio[0] if container.streams.audio else None
        return Clip(
            width=stream.width,
            height=stream.height,
            frames=frames,
            seconds=last + 1 / rate if frames else 0.0,
            stated=_stated(container),
            sample_rate=int(sound.rate) if sound else None,
            channels=int(sound.channels) if sound else None,
        )


def frames_of(data: bytes, count: int) -> list[bytes]:
    """Return up to `count` frames of a stored video, evenly spaced, each as BMP. Raises ValueError."""
    import numpy as np

    with _opened(data) as container:
        there = sum(packet.size > 0 for packet in container.demux(_picture(container)))
    wanted = set(np.linspace(0, there - 1, min(count, there)).round().astype(int).tolist())
    found = []
    with _opened(data) as container:
        for number, frame in enumerate(container.decode(_picture(container))):
            if number in wanted:
                stream = io.BytesIO()
                frame.to_image().save(stream, "BMP")
                found.append(stream.getvalue())
    return found


def soundtrack(data: bytes) -> tuple[Any, int]:
    """Return the sound of a stored video as (frames,) float32, channels averaged, and its sample rate.

    Raises ValueError for a video without sound.
    """
    import av
    import numpy as np

    with _opened(data) as container:
        if not container.streams.audio:
            raise ValueError("the video has no sound")
        stream = container.streams.audio[0]
        even = av.AudioResampler(format="fltp", rate=stream.rate)
        blocks = [
            block.to_ndarray().mean(axis=0)
            for frame in (*container.decode(stream), None)
            for block in even.resample(frame)
        ]
        return np.concatenate(blocks).astype(np.float32), int(stream.rate)


@contextmanager
def _opened(data: bytes) -> Iterator[av.container.InputContainer]:
    """Open a video; the errors of its codecs are ValueErrors."""
    import av

    form = video_format(data)
    if form is None:
        raise ValueError("no video of a known format")
    try:
        with av.open(io.BytesIO(data), format=_DEMUXERS[form]) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise ValueError(str(error)) from error


def _picture(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it has no frames")
    return container.streams.video[0]


def _stated(container: Any) -> float | None:
    return container.duration / 1_000_000 if container.duration else None

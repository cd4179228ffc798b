"""What an image or a sound is, proved by decoding it once; what cannot be used is refused with a reason."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from math import gcd
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from normloom.readers.media.video import clip_of, size_of, soundtrack, video_format

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["image", "sound", "video"]
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **{f".{form.lower()}": form for form in ("PNG", "WEBP", "GIF", "BMP")},
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **{f".{form.lower()}": form for form in ("WAV", "FLAC", "OGG", "MP3")},
    **dict.fromkeys((".mp4", ".m4v", ".mov"), "MP4"),
    **dict.fromkeys((".webm", ".mkv"), "MKV"),
    ".avi": "AVI",
}
_ALSO = {"JPEG": {"MPO"}, "WAV": {"WAVEX"}, "OGG": {"OPUS"}}  # what else a file of that suffix may be
_SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_PLAIN = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})  # eight bits a channel, none of ink
_BLOCK = 1 << 16  # frames of sound that are decoded at once
_FLAT = 2.0  # spread of grey levels below which a picture has nothing to compare
_HASHED = 32  # pixels along a side of what is hashed
_ORIENTATION = 0x0112  # EXIF


class MediaLimits(BaseModel):
    """What is refused because of its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(100_000_000, ge=1, description="bytes of a file; larger ones are quarantined")
    max_pixels: int = Field(50_000_000, ge=1, description="pixels of an image or frame; larger ones are not decoded")
    max_seconds: float = Field(3_600, gt=0, description="seconds of sound or video; longer ones are quarantined")
    max_channels: int = Field(2, ge=1, description="channels of a sound; those with more are quarantined")


class BadMediaError(Exception):
    """An image or a sound that cannot be used: the rule that it breaks, and how."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A medium that was decoded. `data` is what is stored: its own bytes unless it was `normalised`.

    `phash` is the 64-bit perceptual hash of an image, None for one without structure, and for sound.
    """

    kind: Kind
    format: str
    data: bytes
    width: int | None = None
    height: int | None = None
    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None
    normalised: str | None = None
    phash: int | None = None


def decode(data: bytes, name: str, limits: MediaLimits) -> Decoded:
    """Return what a medium is; `name` is its file name, whose suffix must not lie. Raises BadMediaError.

    Rules: `empty`, `unreadable`, `truncated`, `wrong_suffix`, `too_large`, `animated`, `no_sound`, `too_long`,
    `too_many_channels`, `no_frames`. Images in CMYK, with 16 bits a channel or rotated by EXIF are normalised to
    upright PNG.
    """
    if not data:
        raise BadMediaError("empty", "0 bytes")
    if form := video_format(data):
        return _video(data, name, form, limits)
    if data.startswith(_SOUNDS) and data[8:12] != b"WEBP":
        return _sound(data, name, limits)
    return _image(data, name, limits)


def image_of(data: bytes) -> Image:
    """Return a stored image in RGB; what is transparent is white."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _image(data: bytes, name: str, limits: MediaLimits) -> Decoded:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on damaged metadata; size is judged below
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadMediaError("too_large", f"a decompression bomb ({error})") from error
    except UnidentifiedImageError as error:
        raise BadMediaError("unreadable", "neither an image nor a sound of a known format") from error
    except Exception as error:  # a codec fed with foreign bytes raises anything
        raise BadMediaError("unreadable", f"its header cannot be read ({error})") from error
    form = str(image.format)
    _require_suffix(name, form)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise BadMediaError("too_large", f"{width:,} x {height:,} pixels: expected at most {limits.max_pixels:,}")
    if getattr(image, "n_frames", 1) > 1 and form != "MPO":
        raise BadMediaError("animated", f"{getattr(image, 'n_frames', 1)} frames: expected one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            upright, changed = _upright(image)
    except Exception as error:  # as above
        raise BadMediaError("truncated", f"cannot be decoded to its end ({error})") from error
    stored, form = (_png(upright), "PNG") if changed else (data, form)
    width, height = upright.size
    return Decoded(
        kind="image",
        format=form.lower(),
        data=stored,
        width=width,
        height=height,
        normalised=", ".join(changed) or None,
        phash=perceptual_hash(upright),
    )


def _upright(image: Image) -> tuple[Image, list[str]]:
    """Return an image with eight bits a channel and the right way up, and what was changed for that."""
    import numpy as np
    from PIL import Image as Images
    from PIL import ImageOps

    changed = []
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        changed.append("rotated upright (EXIF)")
    if image.mode not in _PLAIN:
        changed.append(f"{image.mode} to {'L' if image.mode.startswith(('I', 'F')) else 'RGB'}")
        if image.mode.startswith(("I", "F")):
            levels = np.asarray(image, dtype=np.float64)
            most = 65_535.0 if image.mode.startswith("I") else max(float(levels.max()), 1.0)
            image = Images.fromarray((levels.clip(0, most) * (255 / most)).round().astype(np.uint8))
        else:
            image = image.convert("RGB")
    return image, changed


def _png(image: Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def perceptual_hash(image: Image) -> int | None:
    """Return the perceptual hash of an image: the signs of its 64 lowest frequencies against their median.

    Grey levels of 32 x 32 pixels, their discrete cosine transform (Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions"). None for a picture without structure: all of them would be alike.
    """
    import numpy as np
    from PIL import Image as Images
    from scipy.fft import dctn

    grey = image.convert("L").resize((_HASHED, _HASHED), Images.Resampling.BILINEAR)
    levels = np.asarray(grey, dtype=np.float64)
    if levels.std() < _FLAT:
        return None
    low = dctn(levels, norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">u8")[0])


def _sound(data: bytes, name: str, limits: MediaLimits) -> Decoded:
    import soundfile as sf

    try:
        with sf.SoundFile(io.BytesIO(data)) as sound:
            form, rate, channels = str(sound.format), int(sound.samplerate), int(sound.channels)
            _require_suffix(name, form)
            if channels > limits.max_channels:
                raise BadMediaError("too_many_channels", f"{channels}: expected at most {limits.max_channels}")
            if sound.frames > limits.max_seconds * rate:
                raise BadMediaError("too_long", f"more than {limits.max_seconds:g} seconds")
            frames = sum(len(block) for block in sound.blocks(_BLOCK, dtype="int16"))
            stated = int(sound.frames)
    except sf.LibsndfileError as error:
        raise BadMediaError("unreadable", f"cannot be decoded ({error})") from error
    if frames == 0:
        raise BadMediaError("no_sound", "0 seconds")
    if frames < stated or _cut(data):
        raise BadMediaError("truncated", f"its header promises more than its {frames / rate:.2f} seconds")
    return Decoded(
        kind="sound",
        format=form.lower(),
        data=data,
        sample_rate=rate,
        channels=channels,
        seconds=frames / rate,
    )


def _video(data: bytes, name: str, form: str, limits: MediaLimits) -> Decoded:
    _require_suffix(name, form)
    try:
        width, height, stated = size_of(data)
    except ValueError as error:
        raise BadMediaError("unreadable", f"its header cannot be read ({error})") from error
    if width * height > limits.max_pixels:
        raise BadMediaError("too_large", f"{width:,} x {height:,} pixels: expected at most {limits.max_pixels:,}")
    too_long = BadMediaError("too_long", f"more than {limits.max_seconds:g} seconds")
    if (stated or 0) > limits.max_seconds:
        raise too_long
    try:
        clip = clip_of(data, max_seconds=limits.max_seconds, max_pixels=limits.max_pixels)
    except ValueError as error:
        raise BadMediaError("truncated", f"cannot be decoded to its end ({error})") from error
    if clip is None:  # its header promises less, or nothing
        raise too_long
    if not clip.frames:
        raise BadMediaError("no_frames", "0 frames")
    if clip.is_cut:
        raise BadMediaError("truncated", f"its header promises more than its {clip.seconds:.2f} seconds")
    if (clip.channels or 0) > limits.max_channels:
        raise BadMediaError("too_many_channels", f"{clip.channels}: expected at most {limits.max_channels}")
    return Decoded(
        kind="video",
        format=form.lower(),
        data=data,
        width=clip.width,
        height=clip.height,
        sample_rate=clip.sample_rate,
        channels=clip.channels,
        seconds=clip.seconds,
    )


def _cut(data: bytes) -> bool:
    """Say whether a WAV file ends before the size in its header does; libsndfile lets that pass."""
    return (
        data[:4] == b"RIFF"
        and struct.unpack("<I", data[4:8])[0] not in {0, 0xFFFFFFFF}
        and (struct.unpack("<I", data[4:8])[0] + 8 > len(data))
    )


def _require_suffix(name: str, form: str) -> None:
    suffix = PurePath(name).suffix.lower()
    stated = SUFFIXES.get(suffix)
    if stated and form != stated and form not in _ALSO.get(stated, set()):
        raise BadMediaError("wrong_suffix", f"{name} is {form}, not {stated} as its suffix says")


def waveform(data: bytes) -> tuple[Any, int]:
    """Return a stored sound, or that of a video, as (frames,) float32 between -1 and 1, and its sample rate.

    Channels are averaged. Raises ValueError for a video without sound.
    """
    import soundfile as sf

    if video_format(data):
        return soundtrack(data)

    samples, rate = sf.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1), int(rate)


def at_rate(data: bytes, rate: int) -> Any:
    """Return a stored sound, or that of a video, as (frames,) float32 at a sample rate."""
    import numpy as np
    from scipy.signal import resample_poly

    samples, own = waveform(data)
    if own == rate:
        return samples
    common = gcd(own, rate)
    return resample_poly(samples, rate // common, own // common).astype(np.float32)

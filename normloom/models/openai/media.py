"""Images and sounds as endpoints take them: of a format, a size and a length that they accept."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from normloom.core.content import Content, Image, Sound, merged
from normloom.models.media.decoded import UnreadableError, pixels_of, samples_of
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import UnansweredError

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

TOKENS = 1_000  # that an image or a sound is expected to take, for the limit of rate
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_SHRINK = 0.75  # of both sides, until the image is small enough
_LEAST = 16  # pixels of a side
_RATE = 16_000  # samples a second of a sound that is encoded again


def parts(content: Content, options: Options) -> str | list[dict[str, Any]]:
    """Return the content of a message: text, or a list of texts, images and sounds.

    Raises UnansweredError for an image or a sound that cannot be read or is too long.
    """
    if isinstance(content, str):
        return content
    return [_part(part, options) for part in merged(content) if part]


def _part(part: str | Image | Sound, options: Options) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Sound):
        return {"type": "input_audio", "input_audio": encoded_sound(part, most=options.sound_bytes)}
    return {"type": "image_url", "image_url": _url(part, options)}


def length(content: str | list[dict[str, Any]]) -> tuple[int, int]:
    """Return the characters of a message's content, and how many images and sounds it has."""
    if isinstance(content, str):
        return len(content), 0
    texts = [len(part["text"]) for part in content if part["type"] == "text"]
    return sum(texts), len(content) - len(texts)


def _url(image: Image, options: Options) -> dict[str, str]:
    uri = data_uri(image, most=options.image_bytes, side=options.image_side)
    return {"url": uri, **({"detail": options.image_detail} if options.image_detail else {})}


@lru_cache(maxsize=32)
def data_uri(image: Image, *, most: int, side: int) -> str:
    """Return an image as a data URI: its own bytes if they are PNG, JPEG, WebP or GIF and small enough, or encoded
    again (PNG, or JPEG if that is too long), at most `side` pixels wide and high and `most` bytes.

    Raises UnansweredError if it cannot be read.
    """
    try:
        pixels = pixels_of(image)
    except UnreadableError as error:
        raise UnansweredError(str(error)) from None
    form, size = _described(image)
    if form in _TYPES and max(size) <= side and len(image.data) <= most:
        return _uri(_TYPES[form], image.data)
    pixels.thumbnail((side, side))
    while True:
        for form in ("PNG", "JPEG"):
            data = _encoded(pixels, form)
            if len(data) <= most:
                return _uri(_TYPES[form], data)
        if min(pixels.size) <= _LEAST:
            raise UnansweredError(f"image {image.digest} cannot be made smaller than {most} bytes")
        width, height = pixels.size
        pixels = pixels.resize((max(int(width * _SHRINK), 1), max(int(height * _SHRINK), 1)))


@lru_cache(maxsize=32)
def encoded_sound(sound: Sound, *, most: int) -> dict[str, str]:
    """Return a sound in base64 and its format: its own bytes if they are WAV or MP3 and at most `most`, or encoded
    again (WAV, one channel of 16 bits, 16 kHz).

    Raises UnansweredError if it cannot be read, or is longer even so.
    """
    import soundfile

    try:
        samples = samples_of(sound, _RATE)
    except UnreadableError as error:
        raise UnansweredError(str(error)) from None
    data, form = sound.data, _sound_format(sound.data)
    if form is None or len(data) > most:
        stream = io.BytesIO()
        soundfile.write(stream, samples, _RATE, format="WAV", subtype="PCM_16")
        data, form = stream.getvalue(), "wav"
    if len(data) > most:
        raise UnansweredError(
            f"sound {sound.digest} of {len(samples) / _RATE:.0f} seconds is {len(data)} bytes as WAV of 16 kHz, more "
            f"than sound_bytes ({most}): cut it, or raise the model's option sound_bytes"
        )
    return {"data": base64.b64encode(data).decode(), "format": form}


def _sound_format(data: bytes) -> str | None:
    """Return `wav` or `mp3`, None for a sound of another format or the soundtrack of a video."""
    import soundfile

    try:
        form = str(soundfile.info(io.BytesIO(data)).format)
    except soundfile.LibsndfileError:
        return None
    return {"WAV": "wav", "WAVEX": "wav", "MP3": "mp3"}.get(form)


def _described(image: Image) -> tuple[str, tuple[int, int]]:
    """Return the format of an image that can be read, and its width and height."""
    from PIL import Image as Images

    with Images.open(io.BytesIO(image.data)) as read:
        return str(read.format), read.size


def _encoded(pixels: Pixels, form: str) -> bytes:
    stream = io.BytesIO()
    pixels.save(stream, form)
    return stream.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

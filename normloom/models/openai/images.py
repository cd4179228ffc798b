"""Images as endpoints take them: data URIs of a format, a size and a length that they accept."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from normloom.core.content import Content, Image, merged
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import UnansweredError
from normloom.models.pixels import UnreadableImageError, pixels_of

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

TOKENS = 1_000  # that an image is expected to take, for the limit of rate
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_SHRINK = 0.75  # of both sides, until the image is small enough
_LEAST = 16  # pixels of a side


def parts(content: Content, options: Options) -> str | list[dict[str, Any]]:
    """Return the content of a message: text, or a list of texts and images.

    Raises UnansweredError for an image that cannot be read.
    """
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": _url(part, options)}
        for part in merged(content)
        if part
    ]


def length(content: str | list[dict[str, Any]]) -> tuple[int, int]:
    """Return the characters and the images of a message's content."""
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
    except UnreadableImageError as error:
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

"""What a request says: text, or text and images in an order.

Images are known by the hash of their bytes: it is what enters answers of caches and comparisons, never the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Image:
    """An encoded image (PNG, JPEG, WebP, ...); two are equal if their bytes are."""

    digest: str
    data: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the image of encoded bytes."""
        return cls(hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest(), data)


MARK = "\N{OBJECT REPLACEMENT CHARACTER}"  # where an image goes in a text that is kept in a table

Part = str | Image
Content = str | tuple[Part, ...]


def images_of(content: Content) -> tuple[Image, ...]:
    """Return the images of a content, in order."""
    return () if isinstance(content, str) else tuple(part for part in content if isinstance(part, Image))


def text_of(content: Content) -> str:
    """Return the text of a content; an image is the line `[image DIGEST]`."""
    if isinstance(content, str):
        return content
    return "\n\n".join(part if isinstance(part, str) else f"[image {part.digest}]" for part in content)


def with_text(content: Content, text: str, *, gap: str = "\n\n") -> Content:
    """Return a content with further text after it."""
    if isinstance(content, str):
        return f"{content}{gap}{text}"
    *first, last = merged(content)
    return (*first, f"{last}{gap}{text}" if last else text)


def without_marks(text: str) -> str:
    """Return a row's text as it may stand in one with marks."""
    return text.replace(MARK, "")


def shown(text: str, images: Sequence[Image]) -> Content:
    """Return a text with images in place of its marks, in order; raises ValueError if they are not as many."""
    if not images and MARK not in text:
        return text
    first, *others = (piece.strip() for piece in text.split(MARK))
    parts: list[Part] = [first]
    for image, piece in zip(images, others, strict=True):
        parts += [image, piece]
    return tuple(part for part in parts if part)


def merged(content: Content) -> tuple[Part, ...]:
    """Return the parts with no two texts in a row, the last a text (maybe empty)."""
    return tuple(_merged(content))


def _merged(content: Content) -> Iterator[Part]:
    text = ""
    for part in (content,) if isinstance(content, str) else content:
        if isinstance(part, str):
            text = f"{text}\n\n{part}" if text and part else text or part
            continue
        if text:
            yield text
        text = ""
        yield part
    yield text

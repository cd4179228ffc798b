"""The content of a request: text, or a sequence of text, images and sounds.

Images and sounds are identified by the hash of their bytes, which stands for them in caches and comparisons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Medium:
    """An encoded image or sound; two of a kind are equal if their bytes are."""

    kind: ClassVar[str]

    digest: str
    data: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the medium of encoded bytes."""
        return cls(hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest(), data)


class Image(Medium):
    """An encoded image (PNG, JPEG, WebP, ...)."""

    kind = "image"


class Sound(Medium):
    """An encoded sound (WAV, FLAC, MP3, Ogg)."""

    kind = "sound"


MARK = "\N{OBJECT REPLACEMENT CHARACTER}"  # where a medium goes in a text that is kept in a table

Part = str | Image | Sound
Content = str | tuple[Part, ...]


def media_of(content: Content) -> tuple[Image | Sound, ...]:
    """Return the images and sounds of a content, in order."""
    return () if isinstance(content, str) else tuple(part for part in content if not isinstance(part, str))


def text_of(content: Content) -> str:
    """Return the text of a content; an image is the line `[image DIGEST]`, a sound `[sound DIGEST]`."""
    if isinstance(content, str):
        return content
    return "\n\n".join(part if isinstance(part, str) else f"[{part.kind} {part.digest}]" for part in content)


def with_text(content: Content, text: str, *, gap: str = "\n\n") -> Content:
    """Return a content with further text after it."""
    if isinstance(content, str):
        return f"{content}{gap}{text}"
    *first, last = merged(content)
    return (*first, f"{last}{gap}{text}" if last else text)


def without_marks(text: str) -> str:
    """Return a row's text so that it can be put into a text with marks."""
    return text.replace(MARK, "")


def shown(text: str, media: Sequence[Image | Sound]) -> Content:
    """Return a text with its marks replaced by media, in order; raises ValueError if their numbers differ."""
    if not media and MARK not in text:
        return text
    first, *others = (piece.strip() for piece in text.split(MARK))
    parts: list[Part] = [first]
    for medium, piece in zip(media, others, strict=True):
        parts += [medium, piece]
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

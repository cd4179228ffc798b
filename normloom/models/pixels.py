"""The images of requests, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normloom.core.content import Image
from normloom.core.errors import ModelError
from normloom.readers.media import image_of

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels


class UnreadableImageError(ModelError):
    """An image of a request cannot be read: this request's own fault."""


def pixels_of(image: Image) -> Pixels:
    """Return an image in RGB; raises UnreadableImageError."""
    try:
        return image_of(image.data)
    except Exception as error:  # a codec fed with foreign bytes raises anything
        raise UnreadableImageError(f"image {image.digest} cannot be read: {error}") from error

"""The images and sounds of requests, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.readers.media import at_rate, image_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as Pixels


class UnreadableError(ModelError):
    """An image or a sound of a request cannot be read: this request's own fault."""


def pixels_of(image: Image) -> Pixels:
    """Return an image in RGB; raises UnreadableError."""
    try:
        return image_of(image.data)
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # a codec fed with foreign bytes raises anything
        raise _unreadable(image, error) from error


def samples_of(sound: Sound, rate: int) -> npt.NDArray[np.float32]:
    """Return a sound as (frames,) float32 between -1 and 1 at `rate` samples a second; raises UnreadableError."""
    try:
        samples: npt.NDArray[np.float32] = at_rate(sound.data, rate)
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # as above
        raise _unreadable(sound, error) from error
    if not len(samples):
        raise _unreadable(sound, "it lasts 0 seconds")
    return samples


def _missing(error: ImportError) -> ModelError:
    return ModelError(f'images and sounds of requests need {error.name}: pip install "normloom[media]"')


def _unreadable(medium: Medium, error: Exception | str) -> UnreadableError:
    return UnreadableError(f"{medium.kind} {medium.digest} cannot be read: {error}")

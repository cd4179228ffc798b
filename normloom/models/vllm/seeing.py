"""Images in the prompts of vLLM, which wants one token for each and puts the others in place itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor

from normloom.core.content import Image
from normloom.core.errors import ModelError
from normloom.models.pixels import pixels_of


class Placeholders:
    """A `Sight` of prompts for vLLM. The processor only counts: vLLM runs its own on the image."""

    def __init__(self, directory: Path, *, name: str) -> None:
        try:
            self._processor: Any = AutoProcessor.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            why = str(error).strip().splitlines()[0]
            raise ModelError(f"model {name!r}: the processor of its images cannot be loaded: {why}") from error
        mark = getattr(self._processor, "image_token", None)
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        stated = [getattr(config, field, None) for field in ("image_token_id", "image_token_index")]
        token = next((one for one in stated if one is not None), None)
        if not mark or token is None:
            raise ModelError(f"model {name!r}: its processor names no image token, so its prompts cannot hold images")
        self.mark: str = mark
        self._token = int(token)
        self._sizes: dict[str, int] = {}

    @property
    def template(self) -> str | None:
        """The chat template that comes with the processor."""
        template: str | None = getattr(self._processor, "chat_template", None)
        return template

    def tokens(self, image: Image) -> list[int]:
        """Return the one token in place of the mark; raises UnreadableImageError."""
        self.added(image)
        return [self._token]

    def added(self, image: Image) -> int:
        """Return the tokens that vLLM reads of an image besides the one that is there."""
        if image.digest not in self._sizes:
            made = self._processor(text=[self.mark], images=[pixels_of(image)], add_special_tokens=False)
            self._sizes[image.digest] = len(made["input_ids"][0]) - 1
        return self._sizes[image.digest]

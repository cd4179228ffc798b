"""Images in the prompts of a vision-language model: each is encoded once, and its vectors stand among the tokens.

A token of an image is a number beyond the vocabulary that names one vector of one image. What reads tokens (packing,
shared prefixes, batches) needs to know nothing of images, and two images are never taken for one another.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from normloom.core.content import Image
from normloom.core.errors import ModelError
from normloom.models.pixels import pixels_of

_ALIKE = 0.05  # of the spread of logits: how far two ways to read an image may differ


@dataclass(frozen=True)
class _Seen:
    """An image in tokens; `vectors` (tokens of its own, width) are named by the numbers from `first` on."""

    tokens: list[int]
    first: int
    vectors: torch.Tensor


class Images:
    """The images of one model: a `Sight` of its prompts, and the vectors of their tokens.

    `model` is one of transformers' image-text-to-text models, loaded from `directory`. Raises ModelError if its
    processor cannot be loaded or its images do not stand among the tokens.
    """

    def __init__(self, model: Any, directory: Path, *, name: str) -> None:
        self.name = name
        self._model = model
        try:
            self._processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            why = str(error).strip().splitlines()[0]
            raise ModelError(f"model {name!r}: the processor of its images cannot be loaded: {why}") from error
        stated = [getattr(model.config, name, None) for name in ("image_token_id", "image_token_index")]
        token = next((one for one in stated if one is not None), None)
        mark = getattr(self._processor, "image_token", None)
        if token is None or not mark or not hasattr(model, "get_image_features"):
            raise ModelError(
                f"model {name!r} does not read images as tokens, which engine transformers needs; use engine vllm"
            )
        if "mrope_section" in (getattr(model.config.get_text_config(), "rope_parameters", None) or {}):
            raise ModelError(
                f"model {name!r} counts places in images in three dimensions (M-RoPE), which engine transformers does "
                "not; use engine vllm"
            )
        self.mark: str = mark
        self.token_id = int(token)
        self.encoded = 0  # images, so far
        self._first = self._next = int(model.get_input_embeddings().num_embeddings)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._checked = False

    @property
    def template(self) -> str | None:
        """The chat template that comes with the processor."""
        template: str | None = getattr(self._processor, "chat_template", None)
        return template

    def tokens(self, image: Image) -> list[int]:
        """Return the tokens in place of the mark; raises UnreadableImageError."""
        if image.digest not in self._seen:
            self._seen[image.digest] = self._encoded(image)
        self._seen.move_to_end(image.digest)
        return self._seen[image.digest].tokens

    def added(self, image: Image) -> int:  # noqa: ARG002  # all of its tokens are there
        """Return how many more tokens an image takes: none."""
        return 0

    def trim(self, kept: int) -> None:
        """Forget all but the images asked about last; no prompt that is still to be read may hold another."""
        while len(self._seen) > kept:
            self._seen.popitem(last=False)

    def embedded(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the vectors of tokens, (rows, columns, width), None if no image is among them."""
        if not bool((ids >= self._first).any()):
            return None
        embedding = self._model.get_input_embeddings()
        vectors: torch.Tensor = embedding(self.plain(ids)).clone()
        for seen in self._seen.values():
            where = (ids >= seen.first) & (ids < seen.first + len(seen.vectors))
            if bool(where.any()):
                vectors[where] = seen.vectors[ids[where] - seen.first]
        return vectors

    def plain(self, ids: torch.Tensor) -> torch.Tensor:
        """Return tokens with the vocabulary's own token in place of each image token."""
        return ids.masked_fill(ids >= self._first, self.token_id)

    def _encoded(self, image: Image) -> _Seen:
        made = self._processor(
            text=[self.mark], images=[pixels_of(image)], return_tensors="pt", add_special_tokens=False
        )
        inputs = made.to(self._model.device)
        taken = signature(self._model.get_image_features).parameters
        found = self._model.get_image_features(**{name: value for name, value in inputs.items() if name in taken})
        vectors = found.pooler_output if hasattr(found, "pooler_output") else found
        vectors = torch.cat(list(vectors)) if isinstance(vectors, list | tuple) else vectors
        vectors = vectors.reshape(-1, vectors.shape[-1]).to(self._model.dtype)
        ids: list[int] = inputs["input_ids"][0].tolist()
        if ids.count(self.token_id) != len(vectors):
            raise ModelError(
                f"model {self.name!r} makes {len(vectors)} vectors of an image for {ids.count(self.token_id)} tokens"
            )
        first, self._next = self._next, self._next + len(vectors)
        names = iter(range(first, self._next))
        self.encoded += 1
        seen = _Seen([next(names) if token == self.token_id else token for token in ids], first, vectors)
        if not self._checked:
            self._check(inputs, seen)
            self._checked = True
        return seen

    def _check(self, inputs: Any, seen: _Seen) -> None:
        """Hold what follows an image here to what follows it as the model itself reads it; raises ModelError."""
        own = self._model(**inputs).logits[0, -1].float()
        self._seen[""] = seen
        ids = torch.tensor([seen.tokens], device=self._model.device)
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        ours = self._model(inputs_embeds=self.embedded(ids), position_ids=places).logits[0, -1].float()
        del self._seen[""]
        if float((own - ours).abs().max()) > max(_ALIKE * float(own.std()), torch.finfo(self._model.dtype).eps ** 0.5):
            raise ModelError(
                f"model {self.name!r} reads images in a way that engine transformers does not know; use engine vllm"
            )

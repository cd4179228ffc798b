"""Images and sounds in the prompts of a model: each is encoded once, and its vectors stand among the tokens.

A token of a medium is a number beyond the vocabulary that names one vector of one medium. What reads tokens (packing,
shared prefixes, batches) needs to know nothing of media, and two of them are never taken for one another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForMultimodalLM

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.models.media.processors import NO_TOKEN, mark_of, processed, processor_of, require_tokens, token_of

_FEATURES: Mapping[type[Medium], str] = {Image: "get_image_features", Sound: "get_audio_features"}
_LEAST = 2  # tokens of a sound, of fewer of which Qwen2-Audio does not know that they are all of it
_ALIKE = 0.05  # of the spread of logits: how far two ways to read a medium may differ


@dataclass(frozen=True)
class _Read:
    """A medium in tokens; `vectors` (tokens of its own, width) are named by the numbers from `first` on."""

    tokens: list[int]
    first: int
    vectors: torch.Tensor
    token_id: int


class Media:
    """The images and sounds of one model: the `Senses` of its prompts, and the vectors of their tokens.

    `model` is one of transformers' multimodal models, loaded from `directory`, that takes `kinds` of media. Raises
    ModelError if its processor cannot be loaded or its media do not stand among the tokens.
    """

    def __init__(self, model: Any, directory: Path, *, kinds: Iterable[type[Medium]], name: str) -> None:
        self.name = name
        self._model = model
        self._processor = processor_of(directory, name)
        self.marks: Mapping[type[Medium], str] = {kind: mark_of(self._processor, kind) or "" for kind in kinds}
        self._token_ids = {kind: token_of(model.config, kind) for kind in kinds}
        for kind in kinds:
            if not self.marks[kind] or self._token_ids[kind] == NO_TOKEN:
                raise ModelError(
                    f"model {name!r} does not read {kind.kind}s as tokens, which engine transformers needs; "
                    "use engine vllm"
                )
        self._counted = dict.fromkeys(self._token_ids, 0)  # encoded so far
        self._first = self._next = int(model.get_input_embeddings().num_embeddings)
        self._read: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._checked: set[type[Medium]] = set()

    @property
    def template(self) -> str | None:
        """The chat template that comes with the processor."""
        template: str | None = getattr(self._processor, "chat_template", None)
        return template

    def tokens(self, medium: Image | Sound) -> list[int]:
        """Return the tokens in place of the mark; raises UnreadableError."""
        name = medium.kind, medium.digest
        if name not in self._read:
            self._read[name] = self._encoded(medium)
        self._read.move_to_end(name)
        return self._read[name].tokens

    def added(self, medium: Image | Sound) -> int:  # noqa: ARG002  # all of its tokens are there
        """Return how many more tokens a medium takes: none."""
        return 0

    def take_usage(self) -> dict[str, int]:
        """Return the `images` and `sounds` encoded since this was last asked."""
        usage = {f"{kind.kind}s": count for kind, count in self._counted.items()}
        self._counted = dict.fromkeys(self._counted, 0)
        return usage

    def trim(self, kept: int) -> None:
        """Forget all but the media asked about last; no prompt that is still to be read may hold another."""
        while len(self._read) > kept:
            self._read.popitem(last=False)

    def embedded(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Return the vectors of tokens, (rows, columns, width), None if no medium is among them."""
        if not bool((ids >= self._first).any()):
            return None
        embedding = self._model.get_input_embeddings()
        vectors: torch.Tensor = embedding(self.plain(ids)).clone()
        for read in self._read.values():
            where = (ids >= read.first) & (ids < read.first + len(read.vectors))
            if bool(where.any()):
                vectors[where] = read.vectors[ids[where] - read.first]
        return vectors

    def plain(self, ids: torch.Tensor) -> torch.Tensor:
        """Return tokens with the vocabulary's own token in place of each token of a medium."""
        plain = ids
        for read in self._read.values():
            plain = plain.masked_fill((ids >= read.first) & (ids < read.first + len(read.vectors)), read.token_id)
        return plain

    def _encoded(self, medium: Image | Sound) -> _Read:
        kind, token = type(medium), self._token_ids[type(medium)]
        made = processed(self._processor, medium, self.marks[kind], return_tensors="pt")
        inputs = made.to(self._model.device)
        ids: list[int] = inputs["input_ids"][0].tolist()
        made_by = getattr(self._model, _FEATURES[kind], None)
        require_tokens(ids, token, medium, least=1 if made_by else _LEAST)
        vectors = _features(made_by, inputs) if made_by else _placed(self._model, inputs, token)
        vectors = vectors.to(self._model.dtype)
        if ids.count(token) != len(vectors):
            raise ModelError(
                f"model {self.name!r} makes {len(vectors)} vectors of {medium.kind} {medium.digest} for "
                f"{ids.count(token)} tokens"
            )
        first, self._next = self._next, self._next + len(vectors)
        names = iter(range(first, self._next))
        self._counted[kind] += 1
        read = _Read([next(names) if one == token else one for one in ids], first, vectors, token)
        if kind not in self._checked:
            self._check(inputs, read, kind)
            self._checked.add(kind)
        return read

    def _check(self, inputs: Any, read: _Read, kind: type[Medium]) -> None:
        """Hold what follows a medium here to what follows it as the model itself reads it; raises ModelError."""
        own = self._model(**inputs).logits[0, -1].float()
        self._read["", ""] = read
        ids = torch.tensor([read.tokens], device=self._model.device)
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        ours = self._model(inputs_embeds=self.embedded(ids), position_ids=places).logits[0, -1].float()
        del self._read["", ""]
        if float((own - ours).abs().max()) > max(_ALIKE * float(own.std()), torch.finfo(self._model.dtype).eps ** 0.5):
            raise ModelError(
                f"model {self.name!r} reads {kind.kind}s in a way that engine transformers does not know; "
                "use engine vllm"
            )


def _features(made: Callable[..., Any], inputs: Any) -> torch.Tensor:
    """Return what the model's own function makes of a medium, (tokens, width)."""
    taken = signature(made).parameters
    found = made(**{name: value for name, value in inputs.items() if name in taken})
    vectors = found.pooler_output if hasattr(found, "pooler_output") else found
    vectors = torch.cat(list(vectors)) if isinstance(vectors, list | tuple) else vectors
    return vectors.reshape(-1, vectors.shape[-1])


class _Caught(Exception):  # noqa: N818  # it ends a forward pass; nothing is wrong
    """What a model hands to its language model."""


def _placed(model: Any, inputs: Any, token: int) -> torch.Tensor:
    """Return the vectors that a model without such a function (Qwen2-Audio) puts at the tokens of a medium."""

    def catch(module: Any, given: Any, named: dict[str, Any]) -> None:  # noqa: ARG001  # as torch calls it
        raise _Caught(named["inputs_embeds"])

    handle = model.get_decoder().register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(**inputs)
    except _Caught as caught:
        vectors: torch.Tensor = caught.args[0]
    finally:
        handle.remove()
    return vectors[inputs["input_ids"] == token]


def multimodal(directory: Path) -> Any:
    """Return the class of transformers that loads a model which takes media: the one it was saved by.

    The automatic class knows most of them, not all.
    """
    stated = getattr(AutoConfig.from_pretrained(directory, local_files_only=True), "architectures", None) or [""]
    return getattr(transformers, stated[0], AutoModelForMultimodalLM)

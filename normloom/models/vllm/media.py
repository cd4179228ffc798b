"""Images and sounds in the prompts of vLLM, which wants one token for each and puts the others in place itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.models.media.decoded import pixels_of
from normloom.models.media.processors import (
    NO_TOKEN,
    heard,
    mark_of,
    processed,
    processor_of,
    rate_of,
    require_tokens,
    token_of,
)

Decoded = tuple[dict[str, list[Any]], dict[str, list[str]]]


class Placeholders:
    """The `Senses` of prompts for vLLM. The processor only counts: vLLM runs its own on the medium."""

    def __init__(self, directory: Path, config: Any, *, kinds: Iterable[type[Medium]], name: str) -> None:
        self._processor = processor_of(directory, name)
        marks = {kind: mark_of(self._processor, kind) for kind in kinds}
        self._tokens = {kind: token_of(config, kind) for kind in kinds}
        if unnamed := [kind.kind for kind in kinds if not marks[kind] or self._tokens[kind] == NO_TOKEN]:
            raise ModelError(
                f"model {name!r}: its processor names no token of an {unnamed[0]}, so its prompts cannot hold any"
            )
        self.marks: Mapping[type[Medium], str] = {kind: str(mark) for kind, mark in marks.items()}
        self._sizes: dict[tuple[str, str], int] = {}

    @property
    def template(self) -> str | None:
        """The chat template that comes with the processor."""
        template: str | None = getattr(self._processor, "chat_template", None)
        return template

    def tokens(self, medium: Image | Sound) -> list[int]:
        """Return the one token in place of the mark; raises UnreadableError."""
        self.added(medium)
        return [self._tokens[type(medium)]]

    def added(self, medium: Image | Sound) -> int:
        """Return the tokens that vLLM reads of a medium besides the one that is there."""
        name = medium.kind, medium.digest
        if name not in self._sizes:
            kind = type(medium)
            ids = processed(self._processor, medium, self.marks[kind])["input_ids"][0]
            require_tokens(ids, self._tokens[kind], medium)
            self._sizes[name] = len(ids) - 1
        return self._sizes[name]

    def decoded(self, media: Sequence[Image | Sound]) -> Decoded:
        """Return media as vLLM takes them, and their hashes, by kind: images, samples of sounds with their rate."""
        data: dict[str, list[Any]] = {}
        names: dict[str, list[str]] = {}
        for medium in media:
            kind = "image" if isinstance(medium, Image) else "audio"
            data.setdefault(kind, []).append(self._given(medium))
            names.setdefault(kind, []).append(medium.digest)
        return data, names

    def _given(self, medium: Image | Sound) -> Any:
        if isinstance(medium, Image):
            return pixels_of(medium)
        return heard(self._processor, medium), rate_of(self._processor)

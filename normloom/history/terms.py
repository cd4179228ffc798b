"""What is known of the source of a build: what it is called, its licence, how it is cited, its languages."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SourceTerms(BaseModel):
    """A source and its terms; a build's lock has them, no key does.

    `name` is what the user named, without secrets, None for built-in data. `licence` is an identifier (SPDX, or one of
    the Hugging Face hub's) or a name. `language` has codes such as `en`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    licence: str | None = None
    citation: str | None = None
    language: tuple[str, ...] = ()

"""Answers: records that never change. A correction is a new answer, and so is taking one back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from normloom.core.rows.text import exact
from normloom.labelling.questions import Value

Origin = Literal["person", "model"]


class Answer(BaseModel):
    """What one person (or one model) answered to one question about one row.

    `row` is the id of the row that was asked about, `shown` the digest of what they saw of it (None if that is not
    known), `tool` what recorded it, with its version. An answer that `undoes` another has no value: that one no longer
    counts, and the one before it does again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str = Field(min_length=1)
    question: str = Field(min_length=1)
    value: Value | None
    who: str = Field(min_length=1)
    when: AwareDatetime
    origin: Origin = "person"
    tool: str
    shown: str | None = None
    undoes: str | None = None

    @cached_property
    def id(self) -> str:
        """The digest of all that it says (20 hex digits)."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()

    @property
    def slot(self) -> tuple[str, str, str]:
        """Row, question and who: of the answers with one slot the newest counts."""
        return (self.row, self.question, self.who)

    @property
    def text(self) -> str:
        """The value in one column: options and texts as they are, several as a JSON list, numbers as written."""
        return as_text(self.value)

    def is_about(self, shown: str) -> bool:
        """Return whether it was given to what is shown now; one of which nothing is known counts."""
        return self.shown in {None, shown}


@dataclass(frozen=True)
class Standing:
    """What became of answers: `current` ones, `corrected` ones with the answer that replaced each, `undone` ones."""

    current: Sequence[Answer]
    corrected: Mapping[str, str]
    undone: Mapping[str, str]


def standing(answers: Iterable[Answer]) -> Standing:
    """Return which answers count, in the order of rows as they were first answered."""
    known = {answer.id: answer for answer in answers}
    ordered = sorted(known.values(), key=lambda answer: (answer.when, answer.id))
    undone = {answer.undoes: answer.id for answer in ordered if answer.undoes}
    slots: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in ordered:
        if answer.undoes is None and answer.id not in undone:
            slots.setdefault(answer.slot, []).append(answer)
    return Standing(
        current=[given[-1] for given in slots.values()],
        corrected={earlier.id: given[-1].id for given in slots.values() for earlier in given[:-1]},
        undone=undone,
    )


def content_of(answers: Iterable[Answer]) -> str:
    """Return the digest of a set of answers, whatever their order; nothing for none."""
    ids = sorted({answer.id for answer in answers})
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:20] if ids else ""


def as_text(value: Value | None) -> str:
    """Return a value as one text."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    return exact(value) if isinstance(value, float) else value


def described(answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON types, with its id."""
    return {"answer": answer.id, **answer.model_dump(mode="json")}


def now() -> datetime:
    """Return the time that an answer given now has."""
    return datetime.now(UTC)


def this_tool() -> str:
    """Return the name and version that answers given through Normloom carry."""
    from importlib.metadata import version

    return f"normloom {version('normloom')}"


def shown_digest(shown: Mapping[str, Any]) -> str:
    """Return the digest of what people see of a row (16 hex digits)."""
    text = json.dumps(shown, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

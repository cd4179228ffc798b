"""Labels as a stage sees them: which they are, and the answers that were there when its key was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from normloom.core.stage import Stage
from normloom.labelling.answers import Answer, Origin, content_of
from normloom.labelling.book import LabelBook
from normloom.labelling.questions import LabelSchema
from normloom.store.store import Store


class Labels(BaseModel):
    """Labels by name: what is asked, whose answers count, and the digest of the answers that a build saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    asks: LabelSchema
    origin: Origin = "person"
    content: str = Field("", description="digest of the answers, filled in when the key is made")
    _answers: Sequence[Answer] = PrivateAttr(default=())

    @property
    def answers(self) -> Sequence[Answer]:
        """The answers that were seen."""
        return self._answers

    @classmethod
    def of(cls, labels: Labels, answers: Sequence[Answer]) -> Self:
        """Return labels with the answers that are seen of them."""
        made = cls(name=labels.name, asks=labels.asks, origin=labels.origin, content=content_of(answers))
        made._answers = tuple(answers)
        return made

    def seen(self, store: Store) -> Labels:
        """Return the labels with the answers that are there now."""
        return Labels.of(self, LabelBook(store, self.name, self.origin).answers())


def with_answers(stage: Stage, store: Store) -> Stage:
    """Return a stage with the answers that are there now, the same stage if it reads no labels."""
    if not any(isinstance(value, Labels) for value in stage.values.values()):
        return stage
    values = {name: value.seen(store) if isinstance(value, Labels) else value for name, value in stage.values.items()}
    return replace(stage, values=values)

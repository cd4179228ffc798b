"""Questions to people about a row, by name, and guidelines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from normloom.core.errors import ConfigError, UsageError
from normloom.core.rows.text import exact

Value = str | float | tuple[str, ...]
Kind = Literal["choice", "choices", "number", "text"]
Given = Mapping[str, "Question | Sequence[str]"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


class Question(BaseModel):
    """One question: a choice of `options` (`several`: any number of them), or a number in a range.

    Without either the answer is a text. An `optional` question may stay unanswered. `text` is the wording shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    options: tuple[str, ...] = ()
    several: bool = False
    low: float | None = None
    high: float | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        ranged = self.low is not None or self.high is not None
        if ranged and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("a range needs both low and high, and low must be less")
        if ranged and self.options:
            raise ValueError("a question has options or a range, not both")
        if self.several and not self.options:
            raise ValueError("several answers need options to choose from")
        if len(set(self.options)) < len(self.options) or "" in self.options:
            raise ValueError("options must differ, and none may be empty")
        return self

    @property
    def kind(self) -> Kind:
        """The kind of answer: one option, several options, a number or a text."""
        if self.options:
            return "choices" if self.several else "choice"
        return "text" if self.low is None else "number"

    @property
    def told(self) -> str:
        """The valid answers, in a few words."""
        if self.low is not None and self.high is not None:
            return f"a number from {exact(self.low)} to {exact(self.high)}"
        if self.kind == "text":
            return "a text"
        return f"{'any' if self.several else 'one'} of {', '.join(self.options)}"

    def fitting(self, value: Any, *, name: str = "the question") -> Value:
        """Return a value as an answer; raises UsageError if it is not valid."""
        refused = UsageError(f"question {name!r}: expected {self.told}, got {value!r}")
        if self.kind == "number":
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise refused from None
            if isinstance(value, bool) or self.low is None or self.high is None or not self.low <= number <= self.high:
                raise refused
            return number
        if self.kind == "choices":
            chosen = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
            if not all(one in self.options for one in chosen) or len(set(chosen)) < len(chosen):
                raise refused
            return tuple(one for one in self.options if one in chosen)
        if not isinstance(value, str) or not value.strip() or (self.options and value not in self.options):
            raise refused
        return value


class LabelSchema(BaseModel):
    """The questions about each row, and the guidelines for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: Mapping[str, Question] = Field(min_length=1)
    guidelines: str = ""

    @classmethod
    def of(cls, questions: Given, guidelines: str = "") -> LabelSchema:
        """Return the schema of questions by name; a list of options stands for a question with these.

        Raises ConfigError for a name that is not a lower-case identifier and for a question that contradicts itself.
        """
        if not questions:
            raise ConfigError("labels need at least one question")
        try:
            made = {
                require_name(name, "question"): one if isinstance(one, Question) else Question(options=tuple(one))
                for name, one in questions.items()
            }
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"a question of labels is wrong: {why}") from error
        return cls(questions=made, guidelines=guidelines)

    @property
    def required(self) -> list[str]:
        """The questions that must be answered."""
        return [name for name, one in self.questions.items() if not one.optional]

    def question(self, name: str) -> Question:
        """Return a question by name; raises UsageError."""
        if name not in self.questions:
            raise UsageError(f"unknown question {name!r}; available: {', '.join(self.questions)}")
        return self.questions[name]


def require_name(name: str, what: str = "labels") -> str:
    """Return a name that a folder and a column may have; raises ConfigError for another."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{what} {name!r}: a name has lower-case letters, digits and _, and begins with a letter")
    return name

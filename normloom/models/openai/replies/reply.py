"""What is read of an endpoint's answer, checked: anything else than a chat completion is a ValidationError."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

_LEAST = 1e-12  # rounding must not leave an unlisted answer without any probability


class Listed(BaseModel):
    """A token and its log-probability."""

    token: str
    logprob: float = Field(allow_inf_nan=False)


class Position(Listed):
    """The token drawn at one place of the answer and the likeliest ones there."""

    top_logprobs: list[Listed] = Field(default_factory=list)


class LogProbabilities(BaseModel):
    """The places of the answer."""

    content: list[Position] | None = None


class Message(BaseModel):
    """The answer's text, or why there is none, and what servers that keep thinking apart say of it.

    Some give text and thinking as typed chunks of the content.
    """

    content: str | list[Mapping[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def text(self) -> str:
        """The answer."""
        return _chunks(self.content, "text")

    @property
    def thought(self) -> str:
        """What was thought before it, if it can be told apart."""
        told = self.reasoning_content or self.reasoning
        if isinstance(told, str):
            return told
        return _chunks(self.content, "thinking") if isinstance(self.content, list) else ""


class Choice(BaseModel):
    """One answer."""

    message: Message
    finish_reason: str | None = None
    logprobs: LogProbabilities | None = None


class PromptDetails(BaseModel):
    """What the reply says of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(BaseModel):
    """Tokens read and written, as the endpoint counts and bills them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt found in the endpoint's cache; 0 if it does not tell."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class Reply(BaseModel):
    """A chat completion."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None

    @property
    def choice(self) -> Choice:
        """The answer: one is asked for."""
        return self.choices[0]

    @property
    def used(self) -> Usage:
        """Tokens of the request; none if the endpoint does not tell."""
        return self.usage or Usage()


def error_inside(content: bytes) -> Any:
    """Return the error that an answer with a good status holds, of the whole or of its one choice; None without."""
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    for part in (answer, *(choices if isinstance(choices, list) else ())):
        if isinstance(part, dict) and part.get("error"):
            return part["error"]
    return None


def answer_logprobs(positions: Sequence[Position], answers: Sequence[str]) -> tuple[float, ...] | None:
    """Return the log-probability of each answer, None if not one of them is listed.

    They are read from the first place at which one is listed; only places at which blanks were drawn may come before
    it. Tokens that differ in blanks around them are added up. An answer that is not listed gets the most that it can
    have: as much as the least likely of those listed, or what they leave over, whichever is less.
    """
    for position in positions:
        spelled: dict[str, float] = {}
        for entry in position.top_logprobs:
            token = entry.token.strip()
            spelled[token] = float(np.logaddexp(spelled.get(token, -math.inf), entry.logprob))
        if any(answer in spelled for answer in answers):
            most = _most_unlisted(position)
            return tuple(spelled.get(answer, most) for answer in answers)
        if position.token.strip():
            return None
    return None


def _most_unlisted(position: Position) -> float:
    """Return the most that the log-probability of a token which is not listed can be."""
    # some endpoints list the drawn token too, however unlikely it is
    likeliest = [entry.logprob for entry in position.top_logprobs if entry.token != position.token] or [
        position.logprob
    ]
    left_over = 1 - sum(math.exp(entry.logprob) for entry in position.top_logprobs)
    return min(*likeliest, math.log(max(left_over, _LEAST)))


def _chunks(content: Any, kind: str) -> str:
    """Return the text of the chunks of a kind; a chunk of thinking is a text or chunks itself."""
    if isinstance(content, list):
        return "".join(_chunks(chunk.get(kind), "text") for chunk in content if chunk.get("type", "text") == kind)
    return content if isinstance(content, str) else ""

"""What is read of an endpoint's answer, checked: anything else than a chat completion is a ValidationError."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    """The answer's text, or why there is none."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One answer."""

    message: Message
    finish_reason: str | None = None
    logprobs: LogProbabilities | None = None


class PromptDetails(BaseModel):
    """What is told of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(BaseModel):
    """Tokens read and written, as the endpoint counts and bills them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt found in the endpoint's cache; 0 where it does not tell."""
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
        """Tokens of the request; none where the endpoint does not tell."""
        return self.usage or Usage()


def answer_logprobs(place: Position, answers: Sequence[str], *, leading_space: bool) -> tuple[float, ...] | None:
    """Return the log-probability of each answer, None where not one of them is listed.

    Tokens of the same spelling are added up. An answer that is not listed gets the most that it can have: as much
    as the least likely of those listed, or what they leave over, whichever is less.
    """
    listed = place.top_logprobs
    spelled: dict[str, float] = {}
    for entry in listed:
        token = entry.token.removeprefix(" ") if leading_space else entry.token
        spelled[token] = float(np.logaddexp(spelled.get(token, -math.inf), entry.logprob))
    if not any(answer in spelled for answer in answers):
        return None
    # some endpoints list the drawn token too, however unlikely it is
    likeliest = [entry.logprob for entry in listed if entry.token != place.token] or [place.logprob]
    left_over = 1 - sum(math.exp(entry.logprob) for entry in listed)
    most = min(*likeliest, math.log(max(left_over, _LEAST)))
    return tuple(spelled.get(answer, most) for answer in answers)

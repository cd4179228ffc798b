"""Requests as token ids: the same for every engine that reads tokens, with the same refusal of what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normloom.core.errors import ModelError
from normloom.core.protocol import GenerateRequest, ReplyRequest, Sampling, ScoreRequest
from normloom.models.chat import BREAK, Chat


@dataclass(frozen=True)
class Prompt:
    """A request in tokens: the constant head, the row's own text, then the branches of its questions.

    Each branch runs to the point where the reply begins. A prompt to write after has its end in the trunk and no
    branches. `error` says why it cannot be read: it passes the model's limit.
    """

    head: Sequence[int]
    trunk: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    error: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens read when what questions share is read once."""
        return len(self.head) + len(self.trunk) + sum(map(len, self.branches))

    def sequences(self) -> list[list[int]]:
        """Return the whole prompt of each question; of a prompt without questions, itself."""
        shared = [*self.head, *self.trunk]
        return [[*shared, *branch] for branch in self.branches] if self.branches else [shared]


@dataclass(frozen=True)
class Exchange:
    """A prompt and a reply to it in tokens; `error` says that they pass the limit."""

    prompt: Sequence[int]
    reply: Sequence[int]
    error: str | None = None


class Prompter:
    """Turns requests into prompts with one model's chat template; `limit` is its context in tokens."""

    def __init__(self, chat: Chat, limit: int) -> None:
        self.chat = chat
        self.limit = limit

    def scoring(self, request: ScoreRequest) -> Prompt:
        """Return the prompt of a request for scores."""
        head, tail = self.chat.framed(request.instruction)
        trunk, *questions = self.chat.plain([request.context, *(BREAK + question for question in request.questions)])
        longest = len(head) + len(trunk) + max((len(question) + len(tail) for question in questions), default=0)
        error = None
        if longest > self.limit:
            error = f"the context with its longest question is {longest} tokens, the model's limit {self.limit}"
        return Prompt(head, trunk, [[*question, *tail] for question in questions], error)

    def writing(self, request: GenerateRequest) -> Prompt:
        """Return the prompt of a request for texts."""
        history = request.history
        try:
            head, said, tail = self.chat.framed_after(request.instruction, history)
        except ModelError as refusal:
            if not history:
                raise
            return Prompt((), (), error=str(refusal))
        trunk = [*said, *self.chat.plain([request.prompt])[0], *tail]
        tokens, wanted = len(head) + len(trunk), request.sampling.max_tokens
        error = None
        if tokens + wanted > self.limit:
            what = f"conversation of {len(history) + 1} turns and" if history else "prompt of"
            error = f"the {what} {tokens} tokens with max_tokens {wanted} exceeds the model's limit {self.limit}"
        return Prompt(head, trunk, (), error)

    def exchange(self, request: ReplyRequest, *, end: int) -> Exchange:
        """Return a prompt as it is written after, and the reply to it with the token that ends it."""
        asked = GenerateRequest(
            instruction=request.instruction,
            prompt=request.prompt,
            history=request.history,
            seeds=(),
            sampling=Sampling(max_tokens=1),
        )
        prompt = self.writing(asked)
        reply = [*self.chat.plain([request.reply])[0], end]
        tokens, error = prompt.tokens + len(reply), prompt.error
        limit = min(self.limit, request.max_tokens or self.limit)
        if error is None and tokens > limit:
            error = f"prompt and reply are {tokens} tokens, the limit is {limit}"
        return Exchange([*prompt.head, *prompt.trunk], reply, error)

    def answers(self, request: ScoreRequest) -> list[int]:
        """Return the token of each answer; raises ConfigError for an answer that is not one token."""
        return [self.chat.answer(request.instruction, answer) for answer in request.answers]

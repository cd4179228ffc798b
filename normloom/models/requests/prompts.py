"""Requests as token ids: the same for every engine that reads tokens, with the same refusal of what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from normloom.core.content import Image, Sound, media_of, merged
from normloom.core.errors import ModelError
from normloom.core.models.protocol import GenerateRequest, ReplyRequest, Sampling, ScoreRequest
from normloom.models.media.decoded import UnreadableError
from normloom.models.requests.chat import BREAK, Chat


@dataclass(frozen=True)
class Prompt:
    """A request in tokens: the constant head, the row's own text, then the branches of its questions.

    Each branch runs to the point where the reply begins. A prompt to write after has its end in the trunk and no
    branches. `media` are the images and sounds that the
    trunk has tokens of, and `added` the tokens that the engine adds for them itself. `error` says why it cannot be
    read: it passes the model's limit, or an image or sound is none.
    """

    head: Sequence[int]
    trunk: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    error: str | None = None
    media: tuple[Image | Sound, ...] = ()
    added: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read when what questions share is read once."""
        return len(self.head) + len(self.trunk) + sum(map(len, self.branches)) + self.added

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
        media = media_of(request.context)
        try:
            head, trunk, tail = self.chat.framed_after(request.instruction, (), request.context)
        except UnreadableError as refusal:
            return Prompt((), (), error=str(refusal))
        gap = BREAK if merged(request.context)[-1] or not media else ""  # after a medium a question needs none
        questions = self.chat.plain([gap + question for question in request.questions])
        added = self.chat.added(media)
        longest = len(head) + len(trunk) + added + max((len(question) + len(tail) for question in questions), default=0)
        error = None
        if longest > self.limit:
            what = f"context and {_named(media)} with their" if media else "context with its"
            error = f"the {what} longest question is {longest} tokens, the model's limit {self.limit}"
        return Prompt(head, trunk, [[*question, *tail] for question in questions], error, media, added)

    def writing(self, request: GenerateRequest) -> Prompt:
        """Return the prompt of a request for texts."""
        history, media = request.history, media_of(request.prompt)
        try:
            head, said, tail = self.chat.framed_after(request.instruction, history, request.prompt)
        except ModelError as refusal:
            if not history and not isinstance(refusal, UnreadableError):
                raise
            return Prompt((), (), error=str(refusal))
        trunk = [*said, *tail]
        added = self.chat.added(media)
        tokens, wanted = len(head) + len(trunk) + added, request.sampling.max_tokens
        error = None
        if tokens + wanted > self.limit:
            what = f"conversation of {len(history) + 1} turns and" if history else "prompt of"
            what = f"prompt with {_named(media)} of" if media else what
            error = f"the {what} {tokens} tokens with max_tokens {wanted} exceeds the model's limit {self.limit}"
        return Prompt(head, trunk, (), error, media, added)

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


def _named(media: Sequence[Image | Sound]) -> str:
    counted = Counter(medium.kind for medium in media)
    return " and ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counted.items()))

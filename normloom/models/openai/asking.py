"""One request to an endpoint: what is sent for an instruction and a text, and what was written in answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from normloom.core.content import Content, Part, media_of
from normloom.core.errors import ConfigError
from normloom.core.models.protocol import Candidate, Turn
from normloom.models.openai.endpoint import Endpoint
from normloom.models.openai.media import parts
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import UnansweredError
from normloom.models.openai.replies.reply import Reply
from normloom.models.requests.chat import BREAK, SYSTEM, USER, opening
from normloom.models.requests.reasoning import candidate

FINISHED = ("stop", "length")


class Asker:
    """Asks one endpoint as its options say."""

    def __init__(self, endpoint: Endpoint, options: Options) -> None:
        self.endpoint = endpoint
        self.options = options

    async def ask(
        self, instruction: str, said: Content, settings: dict[str, Any], *, history: Sequence[Turn] = ()
    ) -> Reply:
        """Return the reply; raises UnansweredError for this request alone, ModelError for what concerns them all."""
        reply = await self.endpoint.ask({"messages": self._messages(instruction, said, history), **settings})
        limit, wanted = self.options.max_context, settings[self.options.max_tokens_field]
        read = reply.used.prompt_tokens
        if limit is not None and read + wanted > limit:  # endpoints are known that cut such prompts silently
            raise UnansweredError(f"the prompt of {read} tokens with max_tokens {wanted} exceeds max_context {limit}")
        return reply

    def _messages(self, instruction: str, said: Content, history: Sequence[Turn]) -> list[dict[str, Any]]:
        """Return a request's messages; without a system role what belongs there begins the first user turn."""
        for kind in {medium.kind for medium in media_of(said)}:
            if not getattr(self.options, f"{kind}s"):
                verb = "see" if kind == "image" else "hear"
                raise ConfigError(f"{self.endpoint} cannot {verb} {kind}s (its option {kind}s is false)")
        given, before = opening(instruction, history)
        turns: list[tuple[str, Content]] = [*before, (USER, said)]
        lead = BREAK.join(given)
        if lead and self.options.system_role:
            turns.insert(0, (SYSTEM, lead))
        elif lead and turns[0][0] == USER:
            turns[0] = (USER, _led(lead, turns[0][1]))
        elif lead:
            turns.insert(0, (USER, lead))
        return [{"role": role, "content": parts(content, self.options)} for role, content in turns]

    def written(self, reply: Reply, seed: int) -> Candidate:
        """Return what was written; raises UnansweredError if it is no answer."""
        choice = reply.choice
        if choice.message.refusal:
            raise UnansweredError(f"the model refused: {self.endpoint.failures.quote(choice.message.refusal)}")
        if choice.finish_reason not in FINISHED:
            raise UnansweredError(f"the candidate of seed {seed} ended with finish reason {choice.finish_reason!r}")
        return candidate(
            text=choice.message.text,
            seed=seed,
            finish=str(choice.finish_reason),
            tokens_out=reply.used.completion_tokens,
            reasoning=choice.message.thought,
        )

    def taken(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return those settings that the endpoint takes."""
        return {name: value for name, value in settings.items() if name not in self.options.omit}


def _led(lead: str, content: Content) -> Content:
    """Return a content with text before it."""
    if isinstance(content, str):
        return lead + BREAK + content
    led: tuple[Part, ...] = (lead, *content)
    return led

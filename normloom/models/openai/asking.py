"""One request to an endpoint: what is sent for an instruction and a text, and what was written in answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from normloom.core.protocol import Candidate, Turn
from normloom.models.chat import BREAK, SYSTEM, USER, opening
from normloom.models.openai.endpoint import Endpoint
from normloom.models.openai.failures import UnansweredError
from normloom.models.openai.options import Options
from normloom.models.openai.reply import Reply
from normloom.models.reasoning import candidate

FINISHED = ("stop", "length")


class Asker:
    """Asks one endpoint as its options say."""

    def __init__(self, endpoint: Endpoint, options: Options) -> None:
        self.endpoint = endpoint
        self.options = options

    async def ask(
        self, instruction: str, text: str, settings: dict[str, Any], *, history: Sequence[Turn] = ()
    ) -> Reply:
        """Return the reply; raises UnansweredError for this request alone, ModelError for what concerns them all."""
        reply = await self.endpoint.ask({"messages": self._messages(instruction, text, history), **settings})
        limit, wanted = self.options.max_context, settings[self.options.max_tokens_field]
        read = reply.used.prompt_tokens
        if limit is not None and read + wanted > limit:  # endpoints are known that cut such prompts silently
            raise UnansweredError(f"the prompt of {read} tokens with max_tokens {wanted} exceeds max_context {limit}")
        return reply

    def _messages(self, instruction: str, text: str, history: Sequence[Turn]) -> list[dict[str, str]]:
        """Return a request's messages; without a system role what belongs there begins the first user turn."""
        given, turns = opening(instruction, history)
        lead = BREAK.join(given)
        turns.append(Turn(USER, text))
        if lead and self.options.system_role:
            turns.insert(0, Turn(SYSTEM, lead))
        elif lead and turns[0].role == USER:
            turns[0] = Turn(USER, lead + BREAK + turns[0].content)
        elif lead:
            turns.insert(0, Turn(USER, lead))
        return [{"role": turn.role, "content": turn.content} for turn in turns]

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

"""Scores from an endpoint: log-probabilities if it lists them, else the shares of written answers."""

from __future__ import annotations

import asyncio
import math

from normloom.core.content import Content, with_text
from normloom.core.errors import ModelError
from normloom.core.models.protocol import ScoreRequest, Scores
from normloom.models.openai.asking import FINISHED, Asker
from normloom.models.openai.replies.failures import UnansweredError
from normloom.models.openai.replies.reply import Position, Reply, answer_logprobs
from normloom.models.openai.replies.written import answer_of
from normloom.models.openai.together import together
from normloom.models.requests.chat import BREAK

LEAST_SHARE = 1e-12  # for an answer that nobody gave: logarithms stay finite
_PLACES = 4  # tokens of an answer that begins with blanks


class Scorer:
    """Scores requests with one model, one request for each question or, of `votes`, for each answer."""

    def __init__(self, asking: Asker) -> None:
        self._asking = asking
        # Tokens of an answer, known when one was given; in a batch there is nothing to learn from.
        self._answer_places = _PLACES if asking.options.batch else None
        self._first = asyncio.Lock()

    async def scores(self, request: ScoreRequest) -> Scores:
        """Return the scores of a request, or why there are none; raises ModelError for what concerns them all."""
        try:
            lines = await together(self._question(request, question) for question in request.questions)
        except UnansweredError as error:
            return Scores(logprobs=(), tokens_in=0, error=str(error), transient=error.transient)
        return Scores(logprobs=tuple(line for line, _ in lines), tokens_in=sum(tokens for _, tokens in lines))

    async def _question(self, request: ScoreRequest, question: str) -> tuple[tuple[float, ...], int]:
        """Return the log-probabilities of one question's answers and the tokens read."""
        text = with_text(request.context, question, gap=BREAK)
        if self._asking.options.drawn:
            return await self._voted(request, text)
        reply, positions = await self._first_places(request.instruction, text)
        found = answer_logprobs(positions, request.answers)
        if found is None:
            listed = ", ".join(repr(entry.token) for entry in positions[0].top_logprobs) if positions else "nothing"
            raise UnansweredError(f"none of {', '.join(request.answers)} is among the likeliest answers: {listed}")
        return found, reply.used.prompt_tokens

    async def _first_places(self, instruction: str, text: Content) -> tuple[Reply, list[Position]]:
        """Return the reply to a question and its places; the model's first question is asked alone, to learn how."""
        if self._answer_places is None:
            async with self._first:
                if self._answer_places is None:
                    return await self._read(instruction, text)
        return await self._read(instruction, text)

    async def _read(self, instruction: str, text: Content) -> tuple[Reply, list[Position]]:
        """Return the reply to a question and its places: of one token, or several if answers begin with blanks."""
        asked = self._answer_places or 1
        reply = await self._listed(instruction, text, asked)
        positions = self._positions(reply)
        if asked < _PLACES and not any(position.token.strip() for position in positions):
            self._answer_places = _PLACES
            return await self._read(instruction, text)
        self._answer_places = max(asked, self._answer_places or 1)
        return reply, positions

    async def _listed(self, instruction: str, text: Content, positions: int) -> Reply:
        """Ask for the likeliest tokens at the first places of an answer."""
        drawing = {"temperature": 1.0, "top_p": 1.0, "seed": 0}  # so that the probabilities are the model's own
        settings = {**self._asking.taken(drawing), self._asking.options.max_tokens_field: positions, "logprobs": True}
        settings["top_logprobs"] = self._asking.options.top_logprobs
        reply = await self._asking.ask(instruction, text, settings)
        reason = reply.choice.finish_reason
        if reason is not None and reason not in FINISHED:
            raise UnansweredError(f"an answer ended with finish reason {reason!r}")
        return reply

    def _positions(self, reply: Reply) -> list[Position]:
        """Return the places of an answer; raises ModelError if its endpoint lists none."""
        choice = reply.choice
        if choice.logprobs is None:
            raise ModelError(
                f"{self._asking.endpoint} gives no log-probabilities, which scores are read from: set the model's "
                "options: {scores: written} for one written answer to each question, or {scores: votes} for a "
                "share of several"
            )
        if not choice.logprobs.content:
            raise UnansweredError("an answer is empty")
        return choice.logprobs.content

    async def _voted(self, request: ScoreRequest, text: Content) -> tuple[tuple[float, ...], int]:
        """Return the logarithms of the shares of written answers: of several drawn, or all to the one greedy answer."""
        options = self._asking.options
        temperature = 1.0 if options.scores == "votes" else 0.0
        drawn = await together(self._written(request, text, seed, temperature) for seed in range(options.drawn))
        found = [answer for answer, _, _ in drawn if answer is not None]
        if not found:
            told = ", ".join(dict.fromkeys(repr(said) for _, said, _ in drawn))
            raise UnansweredError(f"none of {', '.join(request.answers)} is among the model's answers: {told}")
        shares = [found.count(position) / len(found) for position in range(len(request.answers))]
        return tuple(math.log(max(share, LEAST_SHARE)) for share in shares), sum(tokens for _, _, tokens in drawn)

    async def _written(
        self, request: ScoreRequest, text: Content, seed: int, temperature: float
    ) -> tuple[int | None, str, int]:
        """Return the place of the answer that is written, what is written, and the tokens read."""
        settings = self._asking.taken({"temperature": temperature, "top_p": 1.0, "seed": seed})
        settings[self._asking.options.max_tokens_field] = self._asking.options.answer_tokens
        reply = await self._asking.ask(request.instruction, text, settings)
        self._asking.endpoint.count(written_answers=1)
        answer = self._asking.written(reply, seed)
        if not answer.text.strip() and answer.finish == "length":
            raise UnansweredError(
                f"the answer is cut off at {self._asking.options.answer_tokens} tokens before it begins: the model "
                "thinks first; set its options: {answer_tokens: 2000}"
            )
        said = self._asking.endpoint.failures.quote(answer.text)
        return answer_of(answer.text, request.answers), said, reply.used.prompt_tokens

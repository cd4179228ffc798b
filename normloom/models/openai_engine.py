"""The engine for hosted models: any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from normloom.errors import ConfigError, ModelError
from normloom.models.chat import BREAK, SYSTEM, USER, opening
from normloom.models.openai_endpoint import Endpoint, UnansweredError
from normloom.models.openai_options import Options
from normloom.models.openai_reply import Reply, answer_logprobs
from normloom.models.progress import Teller, current_teller
from normloom.models.protocol import (
    Candidate,
    Completion,
    GenerateRequest,
    ModelSpec,
    Sampling,
    ScoreRequest,
    Scores,
    Turn,
)
from normloom.models.registry import parse_options

_T = TypeVar("_T")
_Request = TypeVar("_Request")
_FINISHED = ("stop", "length")


class OpenaiModel:
    """A `LanguageModel` behind an OpenAI-compatible endpoint; one request for each candidate and each question.

    Any number of threads may ask at once: they share the limits. What concerns one request becomes its `error`;
    what concerns the endpoint (key, model, address) raises `ModelError`, a wrong setting `ConfigError`.
    `tokens_in` is what the endpoint counts, a prompt as often as it was sent.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:  # noqa: ARG002  (it only waits)
        self.options = parse_options(Options, spec)
        self._endpoint = Endpoint(spec, self.options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"openai {spec.model}", daemon=True)
        self._thread.start()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        return self._wait_for(_together((self._scores(request) for request in requests), tell=current_teller()))

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        settings = [self._sampling(request) for request in requests]
        asked = zip(requests, settings, strict=True)
        return self._wait_for(
            _together((self._completion(request, body) for request, body in asked), tell=current_teller())
        )

    def take_usage(self) -> dict[str, float]:
        """Return requests, retries among them, tokens and cost since this was last asked."""
        return self._endpoint.take_usage()

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _scores(self, request: ScoreRequest) -> Scores:
        try:
            lines = await _together(self._question(request, question) for question in request.questions)
        except UnansweredError as error:
            return Scores(logprobs=(), tokens_in=0, error=str(error), transient=error.transient)
        return Scores(logprobs=tuple(line for line, _ in lines), tokens_in=sum(tokens for _, tokens in lines))

    async def _question(self, request: ScoreRequest, question: str) -> tuple[tuple[float, ...], int]:
        """Return the log-probabilities of one question's answers and the tokens read."""
        options = self.options
        drawing = {"temperature": 1.0, "top_p": 1.0, "seed": 0}  # so that the probabilities are the model's own
        settings = {**self._taken(drawing), options.max_tokens_field: 1, "logprobs": True}
        settings["top_logprobs"] = options.top_logprobs
        reply = await self._ask(self._messages(request.instruction, request.context + BREAK + question), settings)
        choice = reply.choice
        if choice.finish_reason is not None and choice.finish_reason not in _FINISHED:
            raise UnansweredError(f"an answer ended with finish reason {choice.finish_reason!r}")
        if choice.logprobs is None:
            raise ModelError(
                f"{self._endpoint} gives no log-probabilities, which scores are read from: use a model that gives them"
            )
        if not choice.logprobs.content:
            raise UnansweredError("an answer is empty")
        place = choice.logprobs.content[0]
        found = answer_logprobs(place, request.answers, leading_space=options.leading_space)
        if found is None:
            listed = ", ".join(repr(entry.token) for entry in place.top_logprobs)
            raise UnansweredError(f"none of {', '.join(request.answers)} is among the likeliest answers: {listed}")
        return found, reply.used.prompt_tokens

    async def _completion(self, request: GenerateRequest, settings: dict[str, Any]) -> Completion:
        try:
            drawn = await _together(self._candidate(request, seed, settings) for seed in request.seeds)
        except UnansweredError as error:
            return Completion(candidates=(), tokens_in=0, error=str(error), transient=error.transient)
        return Completion(
            candidates=tuple(candidate for candidate, _ in drawn), tokens_in=sum(tokens for _, tokens in drawn)
        )

    async def _candidate(self, request: GenerateRequest, seed: int, settings: dict[str, Any]) -> tuple[Candidate, int]:
        """Return one candidate and the tokens read for it."""
        messages = self._messages(request.instruction, request.prompt, request.history)
        reply = await self._ask(messages, {**settings, **self._taken({"seed": seed})})
        choice = reply.choice
        if choice.message.refusal:
            raise UnansweredError(f"the model refuses: {self._endpoint.quote(choice.message.refusal)}")
        if choice.finish_reason not in _FINISHED:
            raise UnansweredError(f"the candidate of seed {seed} ended with finish reason {choice.finish_reason!r}")
        candidate = Candidate(
            text=choice.message.content or "",
            seed=seed,
            finish=str(choice.finish_reason),
            tokens_out=reply.used.completion_tokens,
        )
        return candidate, reply.used.prompt_tokens

    async def _ask(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> Reply:
        reply = await self._endpoint.ask({"messages": messages, **settings})
        limit, wanted = self.options.max_context, settings[self.options.max_tokens_field]
        read = reply.used.prompt_tokens
        if limit is not None and read + wanted > limit:  # endpoints are known that cut such prompts silently
            raise UnansweredError(f"the prompt of {read} tokens with max_tokens {wanted} passes max_context {limit}")
        return reply

    def _messages(self, instruction: str, text: str, history: Sequence[Turn] = ()) -> list[dict[str, str]]:
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

    def _sampling(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the settings that a request's candidates share."""
        sampling = request.sampling
        settings: dict[str, Any] = self._taken({"temperature": sampling.temperature, "top_p": sampling.top_p})
        settings[self.options.max_tokens_field] = sampling.max_tokens
        if sampling.stop:
            settings["stop"] = list(sampling.stop)
        if sampling.repetition_penalty != 1:
            settings["repetition_penalty"] = self._penalty(sampling)
        if request.json_schema is not None:
            schema = {"name": "answer", "schema": json.loads(request.json_schema), "strict": True}
            settings["response_format"] = {"type": "json_schema", "json_schema": schema}
        return settings

    def _penalty(self, sampling: Sampling) -> float:
        if not self.options.repetition_penalty:
            raise ConfigError(
                f"{self._endpoint}: repetition_penalty {sampling.repetition_penalty:g} is asked for, which OpenAI's "
                "interface does not have; set it to 1, or the option repetition_penalty: true if the endpoint takes it"
            )
        return sampling.repetition_penalty

    def _taken(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name not in self.options.omit}

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run in the loop's thread; whoever stops waiting ends the work."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise ModelError(f"{self._endpoint} is closed") from None
        try:
            return future.result()
        except CancelledError:
            raise ModelError(f"{self._endpoint} was closed while it was at work") from None
        finally:
            future.cancel()

    def _run(self) -> None:
        """Be the loop's thread, until `close`."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        while under_way := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        await self._endpoint.close()


async def _together(work: Iterable[Coroutine[Any, Any, _T]], *, tell: Teller | None = None) -> list[_T]:
    """Return all results in order; the first error ends the rest. `tell` is told the share that has come."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            if tell:
                come = itertools.count(1)
                for task in tasks:
                    task.add_done_callback(lambda _: tell(next(come) / len(tasks)))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]

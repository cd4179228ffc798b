"""The engine for hosted models: any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, TypeVar

from normloom.core.content import Content
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import (
    Candidate,
    Completion,
    GenerateRequest,
    ModelSpec,
    Sampling,
    ScoreRequest,
    Scores,
)
from normloom.models.openai.asking import Asker
from normloom.models.openai.batch import BatchEndpoint
from normloom.models.openai.endpoint import Endpoint
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import UnansweredError
from normloom.models.openai.replies.reply import Reply
from normloom.models.openai.replies.scores import Scorer
from normloom.models.openai.replies.structured import asked_in_words, json_within
from normloom.models.openai.together import together
from normloom.models.registry import parse_options
from normloom.models.requests.progress import current_teller

log = logging.getLogger("normloom.models.openai")


_T = TypeVar("_T")
_WARN_FROM = 4  # texts cut off before their answer


class OpenaiModel:
    """A `LanguageModel` behind an OpenAI-compatible endpoint; one request for each candidate and each question.

    Any number of threads may ask at once: they share the limits. What concerns one request becomes its `error`;
    what concerns the endpoint (key, model, address) raises `ModelError`, a wrong setting `ConfigError`.
    `tokens_in` is what the endpoint counts, a prompt as often as it was sent. With the options `scores` votes or
    written a score is the share of written answers, and 1e-12 for an answer that none of them gives.
    """

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:  # noqa: ARG002  (it only waits)
        self.spec = spec
        self.options = parse_options(Options, spec)
        self._endpoint = (BatchEndpoint if self.options.batch else Endpoint)(spec, self.options)
        self._asking = Asker(self._endpoint, self.options)
        self._scoring = Scorer(self._asking)
        self._lengths: Counter[bool] = Counter()  # texts that were cut off before their answer, and the others
        self._warned = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"openai {spec.model}", daemon=True)
        self._thread.start()

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of each request's answers, in the order of the requests."""
        asked = sum(len(request.questions) for request in requests) * max(self.options.drawn, 1)
        return self._wait_for(self._all(asked, (self._scoring.scores(request) for request in requests)))

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return each request's candidates in the order of its seeds, in the order of the requests."""
        settings = [self._sampling(request) for request in requests]
        work = (self._completion(request, body) for request, body in zip(requests, settings, strict=True))
        return self._wait_for(self._all(sum(len(request.seeds) for request in requests), work))

    def ask_plainly(self, instruction: str, said: Content, **listing: Any) -> Reply:
        """Return the reply to one short question, asked with all fields that candidates are drawn with.

        Raises UnansweredError, unlike the other requests, and ModelError.
        """
        drawing = {"temperature": Sampling().temperature, "top_p": Sampling().top_p, "seed": 0}
        settings = {**self._asking.taken(drawing), self.options.max_tokens_field: self.options.answer_tokens, **listing}
        return self._wait_for(self._asking.ask(instruction, said, settings))

    def take_usage(self) -> dict[str, float]:
        """Return requests, retries among them, tokens and cost since this was last asked."""
        return self._endpoint.take_usage()

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _all(self, requests: int, work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
        """Return the results of one call; the endpoint first learns how many requests it will make."""
        with self._endpoint.expecting(requests):
            return await together(work, tell=current_teller())  # the caller's context came along

    async def _completion(self, request: GenerateRequest, settings: dict[str, Any]) -> Completion:
        try:
            drawn = await together(self._candidate(request, seed, settings) for seed in request.seeds)
        except UnansweredError as error:
            return Completion(candidates=(), tokens_in=0, error=str(error), transient=error.transient)
        return Completion(
            candidates=tuple(candidate for candidate, _ in drawn), tokens_in=sum(tokens for _, tokens in drawn)
        )

    async def _candidate(self, request: GenerateRequest, seed: int, settings: dict[str, Any]) -> tuple[Candidate, int]:
        """Return one candidate and the tokens read for it."""
        seeded = {**settings, **self._asking.taken({"seed": seed})}
        in_words = request.json_schema is not None and "response_format" in self.options.omit
        instruction = asked_in_words(request.instruction, str(request.json_schema)) if in_words else request.instruction
        reply = await self._asking.ask(instruction, request.prompt, seeded, history=request.history)
        drawn = self._asking.written(reply, seed)
        if in_words:
            drawn = replace(drawn, text=json_within(drawn.text))
        self._watch_length(drawn)
        stops = [at for at in map(drawn.text.find, request.sampling.stop) if at >= 0]
        if stops and "stop" in self.options.omit:  # they were not sent to the endpoint
            drawn = replace(drawn, text=drawn.text[: min(stops)], finish="stop")
        return drawn, reply.used.prompt_tokens

    def _watch_length(self, drawn: Candidate) -> None:
        """Warn, once, if most of what is written is cut off before there is any answer."""
        self._lengths[not drawn.text.strip() and drawn.finish == "length"] += 1
        cut, whole = self._lengths[True], self._lengths.total()
        if cut >= _WARN_FROM and 2 * cut > whole and not self._warned:
            self._warned = True
            log.warning(
                "%s: %d of %d texts are empty, cut off at max_tokens before the answer begins; raise the sampling's "
                "max_tokens%s",
                *(self._endpoint, cut, whole, ": the model thinks first" if drawn.reasoning else ""),
            )

    def _sampling(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the settings that a request's candidates share."""
        sampling = request.sampling
        settings: dict[str, Any] = self._asking.taken({"temperature": sampling.temperature, "top_p": sampling.top_p})
        settings[self.options.max_tokens_field] = sampling.max_tokens
        if sampling.stop:
            settings |= self._asking.taken({"stop": list(sampling.stop)})
        if sampling.repetition_penalty != 1:
            settings["repetition_penalty"] = self._penalty(sampling)
        if request.json_schema is not None:
            schema = {"name": "answer", "schema": json.loads(request.json_schema), "strict": True}
            settings |= self._asking.taken({"response_format": {"type": "json_schema", "json_schema": schema}})
        return settings

    def _penalty(self, sampling: Sampling) -> float:
        if not self.options.repetition_penalty:
            raise ConfigError(
                f"{self._endpoint}: repetition_penalty {sampling.repetition_penalty:g} is asked for, which OpenAI's "
                "interface does not have; set it to 1, or the option repetition_penalty: true if the endpoint takes it"
            )
        return sampling.repetition_penalty

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run in the loop's thread; a caller that stops waiting ends the work."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise ModelError(f"{self._endpoint} is closed") from None
        try:
            return future.result()
        except CancelledError:
            raise ModelError(f"{self._endpoint} was closed while in use") from None
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

"""An OpenAI-compatible server over the scripted model, on loopback and in a thread of its own.

It is unkind on purpose: whatever it refuses, it repeats the key it was sent.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from scripted_batches import Batches

from normloom.models import GenerateRequest, ModelSpec, Sampling, ScoreRequest
from normloom.models.scripted import ScriptedModel

MODEL = "toy"
KEY = "sk-scripted-0123456789abcdef"
OVERFLOW = "HUGE"  # a prompt with this word does not fit


@dataclass
class ScriptedServer:
    """The server's settings and what it has seen.

    With `outage` every answer has status 200 and nothing but that error, as of gateways whose upstream is down.
    `statuses` refuses prompts that hold a word with a status and an error, `inside` with an error in an answer of
    status 200, `refuses` all requests with one of these fields; `finishes` ends their answers otherwise; `changes` is
    laid over every answer's one choice. `messages` are the answers to prompts that hold a word, `fillers` what else
    might have been answered, `json` the answer to a request with a schema, None if schemas are passed over. Answers to
    questions begin with `blanks`, tokens of their own, texts with `thoughts` in tags. With `logprobs` off none are
    given, and an answer of at most `words_up_to` tokens is one of `answers`: the likeliest, or drawn by the seed.
    """

    model: ScriptedModel
    answers: tuple[str, ...] = ("Yes", "No")
    key: str | None = KEY
    latency_s: float = 0.0
    outage: Mapping[str, Any] | None = None
    statuses: Mapping[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    inside: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    finishes: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thoughts: str = ""
    blanks: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ("Maybe", " Sure", "I")
    logprobs: bool = True
    json: str | None = '{"white": true}'
    words_up_to: int = 16
    changes: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    base_url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    usage: list[tuple[int, int]] = field(default_factory=list)
    working: int = 0
    peak: int = 0
    batches: Batches = field(default_factory=Batches)

    async def complete(self, request: Request) -> JSONResponse:
        self.arrivals.append(time.monotonic())
        self.working += 1
        self.peak = max(self.peak, self.working)
        try:
            await asyncio.sleep(self.latency_s)
            return self.answer(await request.json(), request.headers.get("authorization", ""))
        finally:
            self.working -= 1

    def answer(self, body: dict[str, Any], authorization: str) -> JSONResponse:
        self.bodies.append(body)
        user = body["messages"][-1]["content"]

        def refuse(status: int, message: str, **details: Any) -> JSONResponse:
            error = {"message": f"{message} ({authorization})", **details}
            return JSONResponse({"error": error}, status, headers=dict(self.headers))

        if refused := self._refused(body, user, authorization, refuse):
            return refused
        tokens_out: int | None
        if self.json is not None and body.get("response_format"):
            choice, tokens_in, tokens_out = _told(self.json), len(user.split()), len(self.json.split())
        elif self.logprobs and body.get("logprobs"):
            choice, tokens_in, tokens_out = self._scored(body)
        elif not self.logprobs and self._limit(body) <= self.words_up_to:
            choice, tokens_in, tokens_out = self._worded(body)
        else:
            choice, tokens_in, tokens_out = self._written(body)
        choice = next(({**choice, "message": dict(one)} for mark, one in self.messages.items() if mark in user), choice)
        if tokens_out is None:
            message = f"This model's maximum context length is 100 tokens, your messages have {tokens_in}"
            return refuse(400, message, code="context_length_exceeded", param="messages")
        self.usage.append((tokens_in, tokens_out))
        finish = next((finish for mark, finish in self.finishes.items() if mark in user), choice["finish_reason"])
        return JSONResponse(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [{**choice, "finish_reason": finish, **self.changes}],
                "usage": {
                    "prompt_tokens": tokens_in,
                    "completion_tokens": tokens_out,
                    "prompt_tokens_details": {"cached_tokens": 1},
                },
            }
        )

    def _refused(
        self, body: dict[str, Any], user: str, authorization: str, refuse: Callable[..., JSONResponse]
    ) -> JSONResponse | None:
        if self.key is not None and authorization != f"Bearer {self.key}":
            return refuse(401, "Incorrect API key provided", code="invalid_api_key")
        if body["model"] != MODEL:
            return refuse(404, f"The model {body['model']} does not exist", code="model_not_found")
        if self.outage is not None:
            return JSONResponse({"error": dict(self.outage)})
        for mark, (status, error) in self.statuses.items():
            if mark in user:
                return refuse(status, **error)
        for mark, told in self.inside.items():
            if mark in user:
                return JSONResponse({"error": told})
        for name, message in self.refuses.items():
            if name in body:
                return refuse(400, message, type="invalid_request_error", param=None)
        return None

    @staticmethod
    def _limit(body: dict[str, Any]) -> int:
        return int(body.get("max_tokens") or body["max_completion_tokens"])

    def _worded(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int | None]:
        """Answer a question in words: greedily, or by the share that each answer has."""
        choice, tokens_in, tokens_out = self._scored({**body, "top_logprobs": 20})
        if tokens_out is None:
            return choice, tokens_in, None
        shares = {
            entry["token"]: math.exp(entry["logprob"]) for entry in choice["logprobs"]["content"][-1]["top_logprobs"]
        }
        answers = [shares[answer] for answer in self.answers]
        drawn = random.Random(f"{body['messages']} {body.get('seed')}").random() * sum(answers)
        word = self.answers[0] if drawn < answers[0] else self.answers[1]
        if not body.get("temperature", 1):
            word = max(self.answers, key=lambda answer: shares[answer])
        message = {"role": "assistant", "content": f"{''.join(self.blanks)}{word}."}
        return {"message": message, "finish_reason": "stop"}, tokens_in, 2

    def _written(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int | None]:
        instruction, user = self._turns(body)
        sampling = Sampling(
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            max_tokens=self._limit(body),
            stop=tuple(body.get("stop", ())),
        )
        request = GenerateRequest(instruction=instruction, prompt=user, seeds=(body.get("seed", 0),), sampling=sampling)
        [completion] = self.model.generate([request])
        if completion.error:
            return {}, completion.tokens_in, None
        [candidate] = completion.candidates
        text = f"<think>{self.thoughts}</think>\n\n{candidate.text}" if self.thoughts else candidate.text
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": candidate.finish}
        return choice, completion.tokens_in, candidate.tokens_out

    def _scored(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int | None]:
        instruction, user = self._turns(body)
        context, _, question = user.rpartition("\n\n")
        request = ScoreRequest(instruction=instruction, context=context, questions=(question,), answers=self.answers)
        [scores] = self.model.score([request])
        if scores.error:
            return {}, scores.tokens_in, None
        rest = math.log((1 - sum(map(math.exp, scores.logprobs[0]))) / (len(self.fillers) + 1))
        listed = {**dict.fromkeys(self.fillers, rest), **dict(zip(self.answers, scores.logprobs[0], strict=True))}
        likeliest = sorted(listed.items(), key=lambda entry: -entry[1])[: body["top_logprobs"]]
        place = {
            "token": likeliest[0][0],
            "logprob": likeliest[0][1],
            "top_logprobs": [{"token": token, "logprob": logprob} for token, logprob in likeliest],
        }
        before = [
            {"token": blank, "logprob": -0.01, "top_logprobs": [{"token": blank, "logprob": -0.01}]}
            for blank in self.blanks
        ]
        places = [*before, place][: self._limit(body)]
        message = {"role": "assistant", "content": "".join(str(one["token"]) for one in places)}
        finish = {"message": message, "finish_reason": "length"}
        return {**finish, "logprobs": {"content": places}}, scores.tokens_in, len(places)

    @staticmethod
    def _turns(body: dict[str, Any]) -> tuple[str, str]:
        *system, user = (message["content"] for message in body["messages"])
        return "".join(system), user


def _told(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}


@contextmanager
def serving(*, options: Mapping[str, Any] | None = None, **settings: Any) -> Iterator[ScriptedServer]:
    """Serve a scripted model with `options`; `settings` are those of ScriptedServer, which may be changed meanwhile."""
    spec = ModelSpec(engine="scripted", model=MODEL, options={"overflow_on": OVERFLOW, **(options or {})})
    scripted = ScriptedServer(ScriptedModel(spec), **settings)
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", scripted.complete, methods=["POST"], response_model=None)
    scripted.batches.add_to(app, scripted.answer)
    listening = socket.create_server(("127.0.0.1", 0))
    scripted.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield scripted  # the socket listens already: a request that is early waits
    finally:
        server.should_exit = True
        thread.join()
        listening.close()

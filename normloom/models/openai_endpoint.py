"""One model behind an OpenAI-compatible endpoint: its limits, what goes wrong on the way to it, its bill."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import openai
from pydantic import SecretStr, ValidationError

from normloom.errors import ConfigError, ModelError
from normloom.models.openai_options import Options
from normloom.models.openai_reply import Reply
from normloom.models.protocol import ModelSpec
from normloom.models.rate_limit import Pace

log = logging.getLogger("normloom.models.openai")

CONNECT_SECONDS = 10.0
TRANSIENT = (  # and all from 500
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
OUTAGE = 8  # requests given up in succession, or as many as are under way at once, are no longer the rows' fault
CHARACTERS_PER_TOKEN = 4  # a guess to reserve by; what was used is settled afterwards
_SECRET = 8  # characters; servers without keys are given words such as `none`
_QUOTED = 300  # characters of what an endpoint says
_OVERFLOWS = ("context length", "context window", "context size", "maximum model length", "too many tokens")


class UnansweredError(Exception):
    """One request was not answered. `transient` says that the endpoint is to blame: the same request may succeed later.

    Otherwise the reason lies in the request, which will not be answered however often it is sent.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class _TransientError(Exception):
    """A try failed that may succeed later. `unreachable` says that nobody listens at the address."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.unreachable = unreachable


class Endpoint:
    """Sends chat completions to one model. For one event loop; the counters are for any thread.

    Raises ConfigError where the environment does not hold the key.
    """

    def __init__(self, spec: ModelSpec, options: Options) -> None:
        self.options = options
        self.model = spec.model
        self._key = _key(spec, options.key_variable)
        self._client = openai.AsyncOpenAI(
            api_key=self._key.get_secret_value() or "none",  # the library insists on one
            base_url=options.base_url,
            max_retries=0,
            timeout=openai.Timeout(options.timeout_s, connect=min(CONNECT_SECONDS, options.timeout_s)),
        )
        self._slots = asyncio.Semaphore(options.concurrency)
        self._requests = Pace(options.requests_per_minute)
        self._tokens = Pace(options.tokens_per_minute)
        self._given_up = 0
        self._usage: Counter[str] = Counter()
        self._counting = threading.Lock()

    def __str__(self) -> str:
        return f"model {self.model!r} at {self.options.base_url}"

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to one request; tries again where that may help.

        Raises UnansweredError for what concerns this request alone, ModelError for what concerns them all.
        """
        expected = _expected_tokens(body)
        async with self._slots:
            for attempt in range(self.options.retries + 1):
                await self._requests.wait()
                await self._tokens.wait(expected)
                self._count(requests=1, retries=int(attempt > 0))
                try:
                    reply = await self._send(body)
                except _TransientError as error:
                    failed = error
                    if attempt < self.options.retries:
                        seconds = self._pause(attempt, error.wait_s)
                        log.debug("%s: %s; tried again in %.1f s", self, error, seconds)
                        await asyncio.sleep(seconds)
                else:
                    self._given_up = 0
                    self._bill(reply, expected)
                    return reply
        raise self._exhausted(failed)

    def quote(self, said: object) -> str:
        """Return what an endpoint says on one line, shortened, without the key that some repeat."""
        text = " ".join(str(said).split())
        if key := self._key.get_secret_value():
            text = text.replace(key, "***")
        return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"

    def take_usage(self) -> dict[str, float]:
        """Return requests, retries, tokens and cost since this was last asked."""
        with self._counting:
            usage, self._usage = self._usage, Counter()
        names = ("requests", "retries", "prompt_tokens", "cached_tokens", "cost")
        return {name: float(usage[name]) for name in names}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _send(self, body: Mapping[str, Any]) -> Reply:
        """Try once. Errors of the library are not chained: they hold the request, and with it the key."""
        try:
            async with asyncio.timeout(self.options.timeout_s):
                answer = await self._client.chat.completions.with_raw_response.create(
                    model=self.model, messages=body["messages"], extra_body={**body, **self.options.extra}
                )
        except openai.APIStatusError as error:
            raise self._refusal(error, body) from None
        except TimeoutError:
            raise _TransientError(f"no answer within {self.options.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            unreachable = type(cause).__name__ in ("ConnectError", "ConnectTimeout")  # which httpx it is, it decides
            reason = self.quote(f"{type(cause).__name__}: {cause}")
            raise _TransientError(reason, unreachable=unreachable) from None
        try:
            return Reply.model_validate_json(answer.content)
        except ValidationError:
            raise _TransientError(f"the answer is no chat completion: {self.quote(answer.text)}") from None

    def _refusal(self, error: openai.APIStatusError, body: Mapping[str, Any]) -> Exception:
        """Return what an answer with an error status means: try again, give up the request, or all of them."""
        status, told = error.status_code, error.body if isinstance(error.body, Mapping) else {}
        said = self.quote(told.get("message") or told.get("detail") or error.body)
        setting = str(told.get("param")).partition(".")[0]
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return self._key_refused(status, said)
        if status == HTTPStatus.PAYMENT_REQUIRED or told.get("code") == "insufficient_quota":
            return ModelError(f"{self}: the account cannot pay ({status}: {said}); top it up and build again")
        if status == HTTPStatus.NOT_FOUND:
            return ModelError(
                f"{self} is not there (404: {said}); check the name, and base_url, which often ends in /v1"
            )
        if status in TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _TransientError(f"{status}: {said}", wait_s=_seconds_asked(error.response.headers))
        if told.get("code") == "context_length_exceeded" or any(sign in said.lower() for sign in _OVERFLOWS):
            return UnansweredError(f"the prompt does not fit the endpoint's context: {said}")
        if setting in body and setting != "messages":
            return ModelError(f"{self} does not take {setting!r} as it is set ({status}: {said}); change the setting")
        return UnansweredError(f"the endpoint refuses the request ({status}: {said})", transient=True)

    def _key_refused(self, status: int, said: str) -> ModelError:
        variable = self.options.key_variable
        if variable is None:
            return ModelError(f"{self} asks for a key ({status}); name its environment variable in key_variable")
        if status == HTTPStatus.UNAUTHORIZED:  # what is said here repeats the key or parts of it
            return ModelError(f"{self} refuses the key in {variable} (401); set the variable to a valid one")
        return ModelError(f"{self} refuses the key in {variable} ({status}: {said}); use one that may ask this model")

    def _exhausted(self, last: _TransientError) -> Exception:
        """Return what it means that a request was given up."""
        tries = f"{self.options.retries + 1} tries, the last: {last}"
        if last.unreachable:
            return ModelError(f"{self} cannot be reached ({tries}); check base_url, the network and the server")
        self._given_up += 1
        if self._given_up >= max(OUTAGE, self.options.concurrency):
            return ModelError(
                f"{self} left the last {self._given_up} requests unanswered (each {tries}); finished parts are kept, "
                "the same command goes on from here"
            )
        return UnansweredError(f"the endpoint gave no answer in {tries}", transient=True)

    def _pause(self, attempt: int, asked: float) -> float:
        """Return the seconds until the next try: twice as long each time, spread, and as long as was asked for."""
        backoff = 2.0**attempt * random.uniform(0.5, 1)  # noqa: S311  (spreads tries, guards nothing)
        return min(max(backoff, asked), self.options.backoff_cap_s)

    def _bill(self, reply: Reply, expected: int) -> None:
        used = reply.used
        options = self.options
        self._tokens.settle(used.prompt_tokens + used.completion_tokens - expected if reply.usage else 0)
        cost = (used.prompt_tokens * options.price_in + used.completion_tokens * options.price_out) / 1e6
        self._count(prompt_tokens=used.prompt_tokens, cached_tokens=used.cached_tokens, cost=cost)

    def _count(self, **amounts: float) -> None:
        with self._counting:
            self._usage.update(amounts)


def _key(spec: ModelSpec, variable: str | None) -> SecretStr:
    """Return the key from the environment, empty where none is wanted."""
    if variable is None:
        return SecretStr("")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"model {spec.model!r}: the environment variable {variable} is not set where the model runs; put the "
            "endpoint's key there, or set the option key_variable: null for an endpoint that wants none"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"model {spec.model!r}: the key in {variable} holds characters that no key has; set it anew")
    if len(key) >= _SECRET and key in json.dumps(dict(spec.options), default=str):
        raise ConfigError(
            f"model {spec.model!r}: its options hold the key itself; options are recorded in manifests, so name "
            "the environment variable in key_variable instead"
        )
    return SecretStr(key)


def _seconds_asked(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` asks for, given as a number or a date; 0 where it asks for none."""
    stated = headers.get("retry-after", "0")
    try:
        return float(stated)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return 0.0


def _expected_tokens(body: Mapping[str, Any]) -> int:
    characters = sum(len(message["content"]) for message in body["messages"])
    answer = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return characters // CHARACTERS_PER_TOKEN + int(answer)

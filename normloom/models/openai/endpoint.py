"""One model behind an OpenAI-compatible endpoint: its limits, what goes wrong on the way to it, its bill."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx  # before openai, which looks at it even while another thread is still importing it
import openai
from openai.resources.chat import AsyncCompletions  # noqa: F401  # which it would import at the first request
from pydantic import SecretStr, ValidationError

from normloom.core.errors import ConfigError, ModelError
from normloom.core.machine.proxies import proxy_variable
from normloom.core.models.protocol import ModelSpec
from normloom.models.openai.media import TOKENS, length
from normloom.models.openai.options import Options
from normloom.models.openai.rate_limit import Pace
from normloom.models.openai.replies.failures import ServerFailures, SpentError, TransientError
from normloom.models.openai.replies.reply import Reply, error_inside

log = logging.getLogger("normloom.models.openai")

CONNECT_SECONDS = 10.0
OUTAGE = 8  # requests given up in succession, or as many as are under way at once, are no longer the rows' fault
CHARACTERS_PER_TOKEN = 4  # a guess to reserve by; what was used is settled afterwards
_SECRET = 8  # characters; servers without keys are given words such as `none`
_UNREACHABLE = ("ConnectError", "ConnectTimeout", "ProxyError")  # of which httpx they are, openai decides


class Endpoint:
    """Sends chat completions to one model. For one event loop; the counters are for any thread.

    Raises ConfigError if the environment does not hold the key, or holds a proxy that cannot be used.
    """

    def __init__(self, spec: ModelSpec, options: Options) -> None:
        self.options = options
        self.model = spec.model
        self._key = _key(spec, options.key_variable)
        self.failures = ServerFailures(spec.model, options, self._key)
        self._proxy = proxy_variable(options.base_url)
        self._client = openai.AsyncOpenAI(
            api_key=self._key.get_secret_value() or "none",  # the library insists on one
            base_url=options.base_url,
            max_retries=0,
            timeout=openai.Timeout(options.timeout_s, connect=min(CONNECT_SECONDS, options.timeout_s)),
            http_client=self._http_client(),
        )
        self._slots = asyncio.Semaphore(options.concurrency)
        self._requests = Pace(options.requests_per_minute)
        self._tokens = Pace(options.tokens_per_minute)
        self._given_up = 0
        self._usage: Counter[str] = Counter()
        self._counting = threading.Lock()

    def __str__(self) -> str:
        return str(self.failures)

    @contextmanager
    def expecting(self, requests: int) -> Iterator[None]:  # noqa: ARG002  # each is sent as it comes
        """Be ready for the requests of one call."""
        yield

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to one request; tries again where that may help.

        Raises UnansweredError for what concerns this request alone, ModelError for what concerns them all.
        """
        expected = _expected_tokens(body)
        async with self._slots:
            for attempt in range(self.options.retries + 1):
                await self._requests.wait()
                await self._tokens.wait(expected)
                self.count(requests=1, retries=int(attempt > 0))
                try:
                    reply = await self._send(body)
                except TransientError as error:
                    failed = error
                    self._requests.hold(min(error.wait_s, self.options.backoff_cap_s))
                    if attempt < self.options.retries:
                        seconds = self._pause(attempt, error.wait_s)
                        log.debug("%s: %s; tried again in %.1f s", self, error, seconds)
                        await asyncio.sleep(seconds)
                else:
                    self._given_up = 0
                    self._bill(reply, expected)
                    return reply
        raise self._exhausted(failed)

    def take_usage(self) -> dict[str, float]:
        """Return requests, retries, tokens and cost since this was last asked."""
        with self._counting:
            usage, self._usage = self._usage, Counter()
        names = ("requests", "retries", "written_answers", "prompt_tokens", "cached_tokens", "cost")
        return {name: float(usage[name]) for name in names}

    def count(self, **amounts: float) -> None:
        """Add to what is counted."""
        with self._counting:
            self._usage.update(amounts)

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
            raise self.failures.refusal(error.status_code, error.body, error.response.headers, body) from None
        except TimeoutError:
            raise TransientError(f"no answer within {self.options.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reason = self.failures.quote(f"{type(cause).__name__}: {cause}")
            raise TransientError(reason, unreachable=type(cause).__name__ in _UNREACHABLE) from None
        if error_told := error_inside(answer.content):
            raise self.failures.inside(error_told, body)
        try:
            return Reply.model_validate_json(answer.content)
        except ValidationError:
            said = self.failures.quote(answer.text)
            raise TransientError(f"the answer is not a chat completion: {said}") from None

    def _http_client(self) -> Any:
        """Return the library's own client, which goes straight to what no proxy is meant for."""
        host = urlsplit(self.options.base_url).hostname or ""
        direct = {} if self._proxy else {f"all://{f'[{host}]' if ':' in host else host}": None}
        try:
            certificates = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            return openai.DefaultAsyncHttpxClient(mounts=direct, verify=certificates)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{self}: a proxy of the environment cannot be used: {error}") from None

    def _exhausted(self, last: TransientError) -> Exception:
        """Return what it means that a request was given up."""
        tries = f"{self.options.retries + 1} tries, the last: {last}"
        if last.unreachable:
            way = f" through the proxy in {self._proxy}" if self._proxy else ""
            return ModelError(f"{self} cannot be reached{way} ({tries}); check base_url, the network and the server")
        self._given_up += 1
        if self._given_up >= max(OUTAGE, self.options.concurrency):
            return ModelError(
                f"{self} left the last {self._given_up} requests unanswered (each {tries}); finished parts are kept, "
                "rerun the command to resume"
            )
        return SpentError(f"the endpoint gave no answer in {tries}", transient=True)

    def _pause(self, attempt: int, asked: float) -> float:
        """Return the seconds until the next try: twice as long each time, spread, and as long as was asked for."""
        backoff = 2.0**attempt * random.uniform(0.5, 1)  # noqa: S311  (spreads tries, guards nothing)
        return min(max(backoff, asked), self.options.backoff_cap_s)

    def _bill(self, reply: Reply, expected: int) -> None:
        used = reply.used
        options = self.options
        self._tokens.settle(used.prompt_tokens + used.completion_tokens - expected if reply.usage else 0)
        cost = (used.prompt_tokens * options.price_in + used.completion_tokens * options.price_out) / 1e6
        self.count(prompt_tokens=used.prompt_tokens, cached_tokens=used.cached_tokens, cost=cost)


def _key(spec: ModelSpec, variable: str | None) -> SecretStr:
    """Return the key from the environment, empty if none is wanted."""
    if variable is None:
        return SecretStr("")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"model {spec.model!r}: the environment variable {variable} is not set where the model runs; put the "
            "endpoint's key there, or set the option key_variable: null for an endpoint that needs none"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"model {spec.model!r}: the key in {variable} holds characters that keys cannot have; set it again"
        )
    if len(key) >= _SECRET and key in json.dumps(dict(spec.options), default=str):
        raise ConfigError(
            f"model {spec.model!r}: its options hold the key itself; options are recorded in manifests, so name "
            "the environment variable in key_variable instead"
        )
    return SecretStr(key)


@cache
def _certificates(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Return the context that servers are verified in. Reading all certificates takes 20 ms, so it is shared."""
    return httpx.create_ssl_context()


def _expected_tokens(body: Mapping[str, Any]) -> int:
    characters, media = map(sum, zip(*(length(message["content"]) for message in body["messages"]), strict=True))
    answer = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    return characters // CHARACTERS_PER_TOKEN + media * TOKENS + int(answer)

"""Requests sent as batches, which many providers answer within a day at half the price.

The provider is the record of what was sent: each batch carries, in its metadata, a digest of the requests of its part.
So nothing is sent twice, whatever ended the build that sent it, and any machine can collect the answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import openai
from pydantic import ValidationError

from normloom.core.errors import ModelError, WaitingError
from normloom.core.models.protocol import ModelSpec
from normloom.models.openai.endpoint import Endpoint
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import FieldRefusedError, TransientError
from normloom.models.openai.replies.reply import Reply, error_inside

if TYPE_CHECKING:
    from openai.types import Batch

log = logging.getLogger("normloom.models.openai")

MARK = "normloom"  # of the metadata that names a batch's part
PATH: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
LISTED_SECONDS = 20.0  # that a listing of batches is good for, with those sent since
PAGE = 100
KEPT_SECONDS = 30 * 24 * 3600  # that providers keep answers
DIGEST_BYTES = 16
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")

_UNSENT = TransientError("it was in no batch")
_AGAIN = (TransientError, ModelError)  # the account's and the endpoint's own faults pass: a batch keeps them for ever

_T = TypeVar("_T")
_Answers = dict[str, Mapping[str, Any]]


@dataclass
class _Call:
    """The requests of one call of the engine, by what they are known by; `expected` is how many there will be."""

    expected: int
    bodies: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: list[tuple[str, asyncio.Future[Reply]]] = field(default_factory=list)


_call: ContextVar[_Call] = ContextVar("call of the engine")


class BatchEndpoint(Endpoint):
    """Sends the requests of a part as one batch, and gives their answers to a later build.

    `ask` raises WaitingError until the batch has ended. A request that the batch left unanswered, for a reason that may
    pass, is sent again in a further batch.
    """

    def __init__(self, spec: ModelSpec, options: Options) -> None:
        super().__init__(spec, options)
        self._revision = spec.revision
        self._collecting: set[asyncio.Task[None]] = set()
        self._listed: tuple[float, list[Batch]] = (0.0, [])
        self._listing = asyncio.Lock()

    @contextmanager
    def expecting(self, requests: int) -> Iterator[None]:
        """Gather as many requests, of the tasks that are started in here, before any is sent."""
        token = _call.set(_Call(requests))
        try:
            yield
        finally:
            _call.reset(token)

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to one request of a batch; raises WaitingError until it is there, else as `Endpoint`."""
        call, identity = _call.get(), self._identity(body)
        call.bodies[identity] = body
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        call.waiting.append((identity, future))
        if len(call.waiting) == call.expected:
            task = asyncio.create_task(self._collect(call))
            self._collecting.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._collecting.discard)
        return await future

    async def _collect(self, call: _Call) -> None:
        """Settle all requests of a call."""
        settled: Mapping[str, Reply | Exception]
        try:
            settled = await self._settled(call.bodies)
        except Exception as error:  # noqa: BLE001  # raised to all who wait
            settled = dict.fromkeys(call.bodies, error)
        for identity, future in call.waiting:
            _settle(future, settled[identity])

    async def _settled(self, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Reply | Exception]:
        """Return what became of each request; raises WaitingError while some are out."""
        part = hashlib.blake2b("".join(sorted(bodies)).encode(), digest_size=DIGEST_BYTES).hexdigest()
        batches = [batch for batch in await self._batches() if (batch.metadata or {}).get(MARK) == part]
        if waiting := [batch for batch in batches if batch.status in _OPEN]:
            raise WaitingError(self._told(waiting[0]))
        settled: dict[str, Reply | Exception] = {}
        for batch in batches:
            for identity, line in (await self._answers(batch)).items():
                if identity in bodies and isinstance(settled.get(identity, _UNSENT), _AGAIN):
                    settled[identity] = self._read(line, bodies[identity])
        if refused := next((one for one in settled.values() if isinstance(one, FieldRefusedError)), None):
            raise refused
        left = {
            identity: body for identity, body in bodies.items() if isinstance(settled.get(identity, _UNSENT), _AGAIN)
        }
        if left:
            if reasons := {str(settled[identity]) for identity in left if identity in settled}:
                log.warning("%s: %d requests are sent again: %s", self, len(left), "; ".join(sorted(reasons)))
            raise WaitingError(self._told(await self._send_batch(left, part)))
        for identity in bodies:
            self.count(requests=1)
            if isinstance(reply := settled[identity], Reply):
                self._bill(reply, 0)
        return settled

    def _read(self, line: Mapping[str, Any], body: Mapping[str, Any]) -> Reply | Exception:
        """Return the answer of a line of a batch, or what its error means."""
        response = line.get("response") or {}
        status, answer = response.get("status_code"), response.get("body")
        if status is None:
            return TransientError(self.failures.quote(line.get("error")))
        content = json.dumps(answer).encode()
        error = error_inside(content) or (answer if status != HTTPStatus.OK else None)
        if error:
            return (
                self.failures.refusal(status, error, {}, body)
                if status != HTTPStatus.OK
                else self.failures.inside(error, body)
            )
        try:
            return Reply.model_validate_json(content)
        except ValidationError:
            return TransientError(f"the answer is not a chat completion: {self.failures.quote(answer)}")

    async def _batches(self) -> list[Batch]:
        """Return the batches of the account, newest first, as far back as their answers are kept."""
        async with self._listing:
            when, _ = self._listed
            if time.monotonic() - when > LISTED_SECONDS or not when:
                self._listed = time.monotonic(), await self._tried(self._list)
        return self._listed[1]

    async def _list(self) -> list[Batch]:
        oldest = time.time() - KEPT_SECONDS
        found = []
        async for batch in self._client.batches.list(limit=PAGE):
            if batch.created_at < oldest:
                break
            found.append(batch)
        return found

    async def _answers(self, batch: Batch) -> _Answers:
        """Return the lines of a batch that has ended, by request; none if they are not kept any more."""
        if batch.status == "failed":
            reasons = "; ".join(str(error.message) for error in (batch.errors and batch.errors.data) or ())
            log.warning(
                "%s: batch %s failed (%s); its requests are sent again", self, batch.id, self.failures.quote(reasons)
            )
            return {}
        answers: _Answers = {}
        for file in filter(None, (batch.error_file_id, batch.output_file_id)):
            content = await self._tried(partial(self._content, file))
            for line in filter(None, content.splitlines()):
                told = json.loads(line)
                answers[str(told["custom_id"])] = told
        return answers

    async def _content(self, file: str) -> str:
        try:
            return (await self._client.files.content(file)).text
        except openai.NotFoundError:
            return ""

    async def _send_batch(self, bodies: Mapping[str, Mapping[str, Any]], part: str) -> Batch:
        lines = (
            json.dumps(
                {
                    "custom_id": identity,
                    "method": "POST",
                    "url": PATH,
                    "body": {"model": self.model, **body, **self.options.extra},
                },
                ensure_ascii=False,
            )
            for identity, body in bodies.items()
        )
        content = "\n".join(lines).encode() + b"\n"

        async def send() -> Batch:
            file = await self._client.files.create(file=("normloom.jsonl", content), purpose="batch")
            return await self._client.batches.create(
                input_file_id=file.id, endpoint=PATH, completion_window=WINDOW, metadata={MARK: part}
            )

        batch = await self._tried(send)
        if (batch.metadata or {}).get(MARK) != part:  # it would not be found again, but sent and paid for each time
            await self._tried(lambda: self._client.batches.cancel(batch.id))
            raise ModelError(
                f"{self} does not keep the metadata of batches, by which they are found again; batch {batch.id} was "
                "cancelled: set the model's options: {batch: false}"
            )
        self._listed = self._listed[0], [batch, *self._listed[1]]
        log.info("%s: batch %s sent, %d requests", self, batch.id, len(bodies))
        return batch

    async def _tried(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make a call, again where that may help; raises ModelError if it does not."""
        for attempt in range(self.options.retries + 1):
            try:
                return await call()
            except openai.APIStatusError as error:
                if error.status_code in (
                    HTTPStatus.NOT_FOUND,
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    HTTPStatus.NOT_IMPLEMENTED,
                ):
                    raise ModelError(
                        f"{self} does not support batches ({error.status_code}); "
                        "set the model's options: {batch: false}"
                    ) from None
                failure = self.failures.refusal(error.status_code, error.body, error.response.headers, {"messages": []})
                if isinstance(failure, ModelError):
                    raise failure from None
                failed = failure if isinstance(failure, TransientError) else None
                if failed is None:
                    raise ModelError(f"{self} refuses a batch: {failure}") from None
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                failed = TransientError(self.failures.quote(f"{type(cause).__name__}: {cause}"))
            if attempt < self.options.retries:
                await asyncio.sleep(self._pause(attempt, failed.wait_s))
        raise ModelError(f"{self} does not answer about batches ({self.options.retries + 1} tries, the last: {failed})")

    def _told(self, batch: Batch) -> str:
        counts = batch.request_counts
        done = f", {counts.completed:,} of {counts.total:,} requests done" if counts and counts.total else ""
        sent = max(int(time.time() - batch.created_at) // 60, 0)
        return f"batch {batch.id} of {self.model} is {batch.status.replace('_', ' ')}{done}, sent {sent} min ago"

    def _identity(self, body: Mapping[str, Any]) -> str:
        said = json.dumps([self.model, self._revision, body, self.options.extra], sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=DIGEST_BYTES).hexdigest()


def _settle(future: asyncio.Future[Reply], outcome: Reply | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Reply):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)

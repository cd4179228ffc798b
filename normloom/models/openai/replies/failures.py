"""What goes wrong at an endpoint: whether a request is tried again, given up, or all of them, and what cures it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import SecretStr

from normloom.core.errors import ModelError
from normloom.models.openai.options import OMITTED, Options
from normloom.models.openai.rate_limit import seconds_asked

TRANSIENT = (  # and all from 500
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_INVALID = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_QUOTED = 300  # characters of what an endpoint says
_OVERFLOWS = ("context length", "context window", "context size", "maximum model length", "too many tokens")
_KINDS = {  # of errors without a status
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "authentication": HTTPStatus.UNAUTHORIZED,
    "invalid_api_key": HTTPStatus.UNAUTHORIZED,
    "permission": HTTPStatus.FORBIDDEN,
    "insufficient_quota": HTTPStatus.PAYMENT_REQUIRED,
    "not_found": HTTPStatus.NOT_FOUND,
    "rate_limit": HTTPStatus.TOO_MANY_REQUESTS,
}


class UnansweredError(Exception):
    """One request was not answered. `transient` says that the endpoint is to blame: the same request may succeed later.

    Otherwise the reason lies in the request, which will not be answered however often it is sent.
    """

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class SpentError(UnansweredError):
    """One request was given up after all its tries."""


class TransientError(Exception):
    """A try failed that may succeed later. `unreachable` says that nobody listens at the address."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.unreachable = unreachable


class FieldRefusedError(ModelError):
    """The endpoint does not take a field of the request as it is set."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class ServerFailures:
    """Says what the answers of one model mean that are no chat completions."""

    model: str
    options: Options
    key: SecretStr

    def __str__(self) -> str:
        return f"model {self.model!r} at {self.options.base_url}"

    def quote(self, said: object) -> str:
        """Return what an endpoint says on one line, shortened, without the key that some repeat."""
        text = " ".join(str(said).split())
        if key := self.key.get_secret_value():
            text = text.replace(key, "***")
        return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"

    def inside(self, error: Any, body: Mapping[str, Any]) -> Exception:
        """Return what an error means that came with status 200."""
        return self.refusal(_status_told(error), error, {}, body)

    def refusal(self, status: int, error: Any, headers: Mapping[str, str], body: Mapping[str, Any]) -> Exception:
        """Return what an error means: try again, give up the request, or all of them."""
        if isinstance(error, list) and error and isinstance(error[0], Mapping):
            error = error[0].get("error", error[0])
        told = error if isinstance(error, Mapping) else {}
        said = self.quote(_words(told) or error)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return self._key_refused(status, said)
        if status == HTTPStatus.PAYMENT_REQUIRED or told.get("code") == "insufficient_quota":
            return ModelError(f"{self}: the account cannot pay ({status}: {said}); top it up and rerun the command")
        if status == HTTPStatus.NOT_FOUND:
            return ModelError(
                f"{self} does not exist (404: {said}); check the name, and base_url, which often ends in /v1"
            )
        if status in TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return TransientError(f"{status}: {said}", wait_s=seconds_asked(headers, str(error)))
        if told.get("code") == "context_length_exceeded" or any(sign in said.lower() for sign in _OVERFLOWS):
            return UnansweredError(f"the prompt does not fit the endpoint's context: {said}")
        field = _refused_field(told, said, {**body, **self.options.extra}) if status in _INVALID else None
        if field:
            return FieldRefusedError(
                f"{self} does not take {field!r} as it is set ({status}: {said}); {self._cure(field)}", field=field
            )
        return UnansweredError(f"the endpoint refuses the request ({status}: {said})", transient=True)

    def _key_refused(self, status: int, said: str) -> ModelError:
        variable = self.options.key_variable
        if variable is None:
            return ModelError(f"{self} asks for a key ({status}); name its environment variable in key_variable")
        if status == HTTPStatus.UNAUTHORIZED:  # what is said here repeats the key or parts of it
            return ModelError(f"{self} refuses the key in {variable} (401); set the variable to a valid one")
        return ModelError(f"{self} refuses the key in {variable} ({status}: {said}); use one that may ask this model")

    def _cure(self, field: str) -> str:
        """Return the setting that makes an endpoint content that refuses a field."""
        if field in ("max_tokens", "max_completion_tokens"):
            other = "max_tokens" if field == "max_completion_tokens" else "max_completion_tokens"
            return f"set the model's options: {{max_tokens_field: {other}}}, or a smaller max_tokens"
        if field in ("logprobs", "top_logprobs"):
            return "set the model's options: {scores: written}, or top_logprobs to what it gives"
        if field == "repetition_penalty":
            return "set the sampling's repetition_penalty: 1"
        if field in self.options.extra:
            return f"take {field!r} out of the model's options: extra"
        if field == "messages":
            return "set the model's options: {system_role: false}"
        if field in OMITTED:
            return f"set the model's options: {{omit: [{', '.join([*self.options.omit, field])}]}}"
        return "change the setting"


def _words(told: Mapping[str, Any]) -> Any:
    return told.get("message") or told.get("detail") or told.get("error")


def _status_told(error: Any) -> int:
    """Return the status that an error without one names; 500 if it names none: the fault is the server's."""
    told = error if isinstance(error, Mapping) else {}
    named = [told.get(name) for name in ("code", "status", "status_code", "type")]
    for value in named:
        if str(value).isdigit() and HTTPStatus.BAD_REQUEST <= int(str(value)) < 600:  # noqa: PLR2004  # no status
            return int(str(value))
    words = " ".join(str(value).lower() for value in named)
    return next((status for kind, status in _KINDS.items() if kind in words), HTTPStatus.INTERNAL_SERVER_ERROR)


def _refused_field(told: Mapping[str, Any], said: str, body: Mapping[str, Any]) -> str | None:
    """Return the field of the request that an error is about, as its `param`, its `detail` or its words name it."""
    stated = [*_stated_fields(told)]
    for field in stated:
        if field in body and field != "messages":
            return field
    if "messages" in stated and not re.search(r"\bsystem\b", said, re.IGNORECASE):
        return None
    if re.search(r"\bsystem\b.{0,40}\b(role|message|prompt)|\brole\b.{0,40}\bsystem\b", said, re.IGNORECASE):
        return "messages" if body["messages"][0]["role"] == "system" else None
    quoted = (field for field in body if re.search(rf"['\"`]{field}['\"`]", said))
    plain = (field for field in body if "_" in field and re.search(rf"\b{field}\b", said))
    known = (
        field for field in ("logprobs", "temperature", "seed") if field in body and re.search(rf"\b{field}\b", said)
    )
    return next((field for fields in (quoted, plain, known) for field in fields if field != "messages"), None)


def _stated_fields(told: Mapping[str, Any]) -> Iterator[str]:
    if told.get("param"):
        yield str(told["param"]).partition(".")[0]
    detail = told.get("detail")
    for entry in detail if isinstance(detail, list) else ():
        steps = entry.get("loc") if isinstance(entry, Mapping) else None
        yield from (str(step) for step in steps or () if step != "body")

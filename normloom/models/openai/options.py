"""Settings of the engine `openai`, apart from it so that keys are computed without its library."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

_OURS = {"model", "messages", "n", "stream", "seed", "temperature", "top_p", "stop", "response_format"}
_OURS |= {"max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"}

Omitted = Literal["seed", "temperature", "top_p", "stop", "response_format"]
OMITTED: tuple[str, ...] = Omitted.__args__  # type: ignore[attr-defined]  # what Literal holds


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`.

    Those declared with `exclude=True` decide how fast, how patiently and at whose cost, never what is answered:
    no key holds them.
    """

    model_config = ConfigDict(extra="forbid")

    base_url: str = "https://api.openai.com/v1"
    system_role: bool = True  # False puts the instruction at the start of the user's turn
    max_context: int | None = Field(None, ge=1)  # prompt and answer in tokens; by default the endpoint's to refuse
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[Omitted, ...] = ()  # what the endpoint does not take
    repetition_penalty: bool = False  # whether the endpoint takes this field, which is not OpenAI's
    scores: Literal["auto", "logprobs", "votes", "written"] = "auto"  # auto: logprobs, or written without them
    top_logprobs: int = Field(20, ge=1)  # likeliest tokens listed for a score
    votes: int = Field(5, ge=2)  # answers drawn for a score
    answer_tokens: int = Field(16, ge=1)  # of an answer that is written or voted; a model that thinks needs more
    images: bool = True  # False: the model cannot see, so it is not asked about images
    image_bytes: int = Field(5_000_000, ge=1_000)  # of an image; a longer one is encoded again, smaller
    image_side: int = Field(2_048, ge=32)  # pixels; a wider or higher image is made smaller
    image_detail: Literal["low", "high", "auto"] | None = None  # sent with each image, where the endpoint has it
    sounds: bool = True  # False: the model cannot hear, so it is not asked about sounds
    sound_bytes: int = Field(10_000_000, ge=1_000)  # of a sound; a longer one is encoded again as WAV of 16 kHz
    extra: dict[str, Any] = Field(default_factory=dict)  # further fields of the request's body

    batch: bool = Field(default=False, exclude=True)  # answered within a day, by many providers at half the price
    key_variable: str | None = Field("OPENAI_API_KEY", pattern="^[A-Z_][A-Z0-9_]*$", exclude=True)
    concurrency: int = Field(16, ge=1, exclude=True)  # requests under way at once
    requests_per_minute: int | None = Field(None, ge=1, exclude=True)
    tokens_per_minute: int | None = Field(None, ge=1, exclude=True)
    timeout_s: float = Field(300.0, gt=0, exclude=True)  # of one try
    retries: int = Field(6, ge=0, le=100, exclude=True)
    backoff_cap_s: float = Field(60.0, ge=0, exclude=True)  # the longest wait between two tries
    price_in: float = Field(0.0, ge=0, exclude=True)  # per million tokens
    price_out: float = Field(0.0, ge=0, exclude=True)
    currency: str = Field("USD", exclude=True)

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as https://api.openai.com/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("expected an address without user, password or query; a key belongs in key_variable")
        return value.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _nothing_of_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OURS.intersection(value)):
            raise ValueError(f"{', '.join(taken)} may not be set here: the engine sets it")
        return value

    @property
    def drawn(self) -> int:
        """How many answers are written for one score; 0 if it is read from log-probabilities."""
        return {"votes": self.votes, "written": 1}.get(self.scores, 0)

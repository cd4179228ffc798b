"""The interface between stages and models, independent of the engine.

Constant text comes first (`instruction`), then the row's text (`context`), then the questions about
the row (`questions`): an engine that caches the constant part and shares the context among
the questions reads each of them once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from normloom.core.content import Content

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


class Sampling(BaseModel):
    """How tokens are drawn. `temperature` 0 is greedy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.7, ge=0, description="0 takes the likeliest token each time")
    top_p: float = Field(0.9, gt=0, le=1, description="probability mass that tokens are drawn from")
    max_tokens: int = Field(512, ge=1, description="maximum length of an answer, in tokens")
    repetition_penalty: float = Field(1.0, gt=0, description="1: no penalty")
    stop: tuple[str, ...] = Field((), description="texts that end an answer")


class ModelSpec(BaseModel):
    """Which model an actor holds, in which engine, and the resources it takes.

    `model` is an id on the Hugging Face hub, a path, or a name that the engine knows; `revision` is a commit, branch or
    tag of the hub. `dtype` and `device` are "auto" or a name of torch's (bfloat16, cuda:0); `options` are the engine's
    (docs/engines.md). These enter the stage key.

    `actors`, `threads`, `gpus` and `memory` (GB of an actor) override the build's resources for this model, `parts` the
    engine's own number of parts processed at once. They never affect the result, so they do not enter keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str = "transformers"
    model: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    options: Mapping[str, Any] = Field(default_factory=dict)
    actors: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    gpus: float | None = Field(None, ge=0)
    memory: float | None = Field(None, gt=0)
    parts: int | None = Field(None, ge=1)

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.model


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """One context, which may hold images and sounds, and the questions about it.

    Each of `answers` must be one token of the model's vocabulary at the start of its reply.
    """

    instruction: str
    context: Content
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Log-probabilities (natural, over the whole vocabulary), one row per question, one column per answer.

    `error` says why there are none (a context that does not fit); `logprobs` is then empty. `transient` says that
    the request is not to blame: it may be answered later.
    """

    logprobs: tuple[tuple[float, ...], ...]
    tokens_in: int
    error: str | None = None
    transient: bool = False


class Turn(NamedTuple):
    """A turn of a conversation, by `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """One prompt, which may hold images and sounds, and one seed for each candidate wanted.

    `history` has the turns before the prompt; its system texts follow the instruction.

    With `json_schema` (a JSON schema as text) each candidate is JSON valid under the schema, unless cut off by
    `max_tokens`; an engine without structured output raises ConfigError.
    """

    instruction: str
    prompt: Content
    seeds: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    history: tuple[Turn, ...] = ()
    json_schema: str | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One drawn text. `finish` is `stop` or `length`; `reasoning` is what the model thought before it answered."""

    text: str
    seed: int
    finish: str
    tokens_out: int
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The candidates of one request, in the order of its seeds; none when `error` is set.

    `transient` says that the request is not to blame: it may be answered later.
    """

    candidates: tuple[Candidate, ...]
    tokens_in: int
    error: str | None = None
    transient: bool = False


@dataclass(frozen=True, kw_only=True)
class ReplyRequest:
    """A prompt and a reply whose log-probability is requested; `history` is as in `GenerateRequest`.

    If they are longer than `max_tokens` together, or than the context, they are not read and the result is an error.
    """

    instruction: str
    prompt: str
    reply: str
    history: tuple[Turn, ...] = ()
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReplyScore:
    """The log-probability of a reply (natural, the sum over its `tokens`, of which the last one ends the turn).

    `error` says why there is none: prompt and reply do not fit into the context, or exceed `max_tokens`.
    """

    logprob: float
    tokens_in: int
    tokens: int
    error: str | None = None


@runtime_checkable
class ReplyScorer(Protocol):
    """A language model that scores given replies, for preference training."""

    def score_replies(self, requests: Sequence[ReplyRequest]) -> list[ReplyScore]:
        """Return the log-probability of each reply, in the requests' order."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model held by an actor."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return the log-probabilities of the answers to each request's questions, in the requests' order."""
        ...

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return the candidates of each request, in the requests' order."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A sentence encoder held by an actor."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32, shape (texts, dimensions)."""
        ...


@runtime_checkable
class ImageEmbedder(Protocol):
    """An encoder of images held by an actor."""

    def embed_images(self, images: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors of encoded images (PNG, JPEG, ...), float32, shape (images, dimensions)."""
        ...


@runtime_checkable
class SoundEmbedder(Protocol):
    """An encoder of sound held by an actor."""

    def embed_sounds(self, sounds: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors of encoded sounds (WAV, FLAC, ...), float32, shape (sounds, dimensions)."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A model that counts its usage."""

    def take_usage(self) -> dict[str, float]:
        """Return the counts since the last call; counts of any two spans may be added.

        `prompt_tokens` and, of these, `cached_tokens` found in the prefix cache; `slots_used` of `slots` over all
        steps of the batch; `requests` to an endpoint, `retries` among them, and their `cost`; `written_answers` used as
        scores.
        """
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A language model that serves several LoRA adapters at once."""

    def adapted(self, folder: Path) -> LanguageModel:
        """Return it with the adapter in a folder (PEFT's files), sharing the loaded base. Raises ModelError."""
        ...


@runtime_checkable
class Mixable(Protocol):
    """A language model that mixes several LoRA adapters by weights that differ by request."""

    def mixed(self, folders: Sequence[Path], weights: np.ndarray) -> LanguageModel:
        """Return it with the adapters in folders, for one call: `weights` are (requests of the call, adapters).

        Raises ModelError.
        """
        ...


@runtime_checkable
class Closing(Protocol):
    """A model that holds resources besides memory: other processes, connections."""

    def close(self) -> None:
        """Release them."""
        ...


@runtime_checkable
class Batching(Protocol):
    """A model that works at the requests of several calls side by side, and tells how far each call is."""

    @property
    def requests_at_once(self) -> int:
        """How many requests it works at; the others wait."""
        ...


@runtime_checkable
class Sleeping(Protocol):
    """A model that can free its GPU for a while without being unloaded."""

    def sleep(self) -> bool:
        """Move everything off the GPU; False if the device or the settings do not allow it."""
        ...

    def wake(self) -> None:
        """Come back, ready to work."""
        ...

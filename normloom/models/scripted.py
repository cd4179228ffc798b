"""A model without weights whose answers are drawn from hashes of what it is asked: for tests and benchmarks."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.content import Content, media_of, text_of
from normloom.core.errors import ConfigError
from normloom.core.models.protocol import (
    Candidate,
    Completion,
    GenerateRequest,
    ModelSpec,
    ReplyRequest,
    ReplyScore,
    Sampling,
    ScoreRequest,
    Scores,
)
from normloom.models.product_files import ADAPTER
from normloom.models.registry import parse_options, require_free_text
from normloom.models.requests.progress import current_teller

if TYPE_CHECKING:
    from _hashlib import HASHXOF

_TEXT = (
    "a about after again all also always an and another any are as ask at away be because been before being both but "
    "by call can careful change choose clear close come could daily day decide different do does doctor early email "
    "enough every example family feel few find first food for friend from get give go good group hand have health "
    "help her here home how idea if in into is issue it job just keep kind know large last law learn leave less let "
    "like list little live local long look make many may mean meet money more most move much must name need never "
    "new next no not now number of often on one only open or order other our out over own part people person place "
    "plan please point question quick read reason report right safe same school see send share she short should show "
    "simple small so some start state step still story student such sure take talk team tell than that the their "
    "them then there these they thing think this time to today tool try turn two under until up use very want was "
    "water way we week well what when where which while who why will with without word work world would write year"
)
_WORDS = np.array(_TEXT.split(), dtype=object)
SLICES = 10  # of a wait, after each of which progress is reported
_KNOWN_WORDS = 4096  # whose directions a model remembers


class Options(BaseModel):
    """Settings of this engine in `ModelSpec.options`; the last three make chosen requests fail."""

    model_config = ConfigDict(extra="forbid")

    yes_rate: float = Field(0.5, gt=0, lt=1)  # share of questions whose first answer is the likeliest
    latency_s: float = Field(0.0, ge=0)  # waited in each call
    words: int = Field(40, ge=1)  # mean length of a candidate, half of it to one and a half; a token is a word
    frame: str | None = Field(None, pattern="%s")  # what stands around the words, such as '{"response": "%s"}'
    frame_rate: float = Field(1.0, ge=0, le=1)  # share of the candidates that have it
    repeat_rate: float = Field(0.0, ge=0, le=1)  # share of candidates that repeat one fixed text of their prompt
    dimensions: int = Field(64, ge=2)  # of a vector
    price_in: float = Field(0.0, ge=0)  # per million tokens; with a price it counts what it is asked
    price_out: float = Field(0.0, ge=0)
    sleeps: bool = False  # it can be put to sleep
    images: bool = False  # requests may hold images, whose hashes then decide the answers
    sounds: bool = False  # and sounds
    poison: str | None = None  # a request that holds it ends the process
    raise_on: str | None = None  # a request that holds it raises ValueError
    overflow_on: str | None = None  # a request that holds it comes back with `error` set


class ScriptedModel:
    """A `LanguageModel` and an `Embedder`: the same request gets the same result in any process and any batch."""

    def __init__(self, spec: ModelSpec, *, threads: int | None = None) -> None:  # noqa: ARG002  (it computes nothing)
        self.name = spec.model
        self.options = parse_options(Options, spec)
        self._usage: Counter[str] = Counter()
        self._known_direction = lru_cache(maxsize=_KNOWN_WORDS)(self._direction)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """Return log-probabilities; the first of the answers is the likeliest for `yes_rate` of the questions."""
        self._require_senses(request.context for request in requests)
        self._begin([f"{text_of(request.context)}\n{request.questions}" for request in requests])
        scored = [self._scores(request) for request in requests]
        asked = sum(len(request.questions) for request in requests)
        self._bill(asked, sum(scores.tokens_in for scores in scored), 0)
        return scored

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Return word salad, another for each seed; at temperature 0 every seed gets the same."""
        require_free_text(requests, "scripted")
        self._require_senses(request.prompt for request in requests)
        self._begin([_said(request) for request in requests])
        completions = [self._completion(request) for request in requests]
        drawn = [candidate for completion in completions for candidate in completion.candidates]
        read = sum(completion.tokens_in for completion in completions)
        self._bill(len(drawn), read, sum(candidate.tokens_out for candidate in drawn))
        return completions

    def score_replies(self, requests: Sequence[ReplyRequest]) -> list[ReplyScore]:
        """Return a log-probability between -3 and 0 a word."""
        self._begin([f"{request.prompt}\n{request.reply}" for request in requests])
        return [self._reply_score(request) for request in requests]

    def _reply_score(self, request: ReplyRequest) -> ReplyScore:
        read, words = len(f"{request.instruction} {request.prompt}".split()), len(request.reply.split()) + 1
        too_long = request.max_tokens is not None and read + words > request.max_tokens
        too_long = too_long or self._holds(self.options.overflow_on, request.prompt)
        error = _overflow(read + words) if too_long else None
        drawn = _uniform(self._hash("reply", request.instruction, request.prompt, request.reply), words)
        return ReplyScore(logprob=-3 * sum(drawn), tokens_in=read, tokens=words, error=error)

    def adapted(self, folder: Path) -> ScriptedModel:
        """Return the model with an adapter, any file of that name: its answers are others."""
        one = copy(self)
        one.name = f"{self.name} with {hashlib.sha256((folder / ADAPTER[1]).read_bytes()).hexdigest()}"
        return one

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32 (texts, dimensions), near each other for texts that share words."""
        self._begin(texts)
        vectors = np.empty((len(texts), self.options.dimensions), np.float32)
        for i, text in enumerate(texts):
            words = ["", *text.lower().split()]  # the empty word gives an empty text a direction
            direction = np.sum([self._known_direction(word) for word in words], axis=0)
            vectors[i] = direction / np.linalg.norm(direction)
        return vectors

    def embed_images(self, images: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors drawn from the bytes of each image."""
        return self.embed([hashlib.sha256(image).hexdigest() for image in images])

    def embed_sounds(self, sounds: Sequence[bytes]) -> np.ndarray:
        """Return unit vectors drawn from the bytes of each sound."""
        return self.embed_images(sounds)

    def take_usage(self) -> dict[str, float]:
        """Return requests and cost since this was last asked, nothing without a price."""
        usage = {name: float(amount) for name, amount in self._usage.items()}
        self._usage.clear()  # those with an adapter count in it, too
        return usage

    def _bill(self, requests: int, read: int, written: int) -> None:
        if cost := (read * self.options.price_in + written * self.options.price_out) / 1e6:
            self._usage.update({"requests": requests, "prompt_tokens": read, "cost": cost})

    def sleep(self) -> bool:
        """Do nothing: nothing is on a GPU."""
        return self.options.sleeps

    def wake(self) -> None:
        """Do nothing."""

    def _direction(self, word: str) -> np.ndarray:
        random = np.random.default_rng(int.from_bytes(self._hash("embed", word).digest(8), "big"))
        return random.standard_normal(self.options.dimensions, np.float32)

    def _scores(self, request: ScoreRequest) -> Scores:
        context = text_of(request.context)
        tokens = sum(len(text.split()) for text in (request.instruction, context, *request.questions))
        if self._holds(self.options.overflow_on, context):
            return Scores(logprobs=(), tokens_in=tokens, error=_overflow(tokens))
        asked = self._hash("score", request.instruction, context)
        lines = tuple(self._line(_also(asked, question), len(request.answers)) for question in request.questions)
        return Scores(logprobs=lines, tokens_in=tokens)

    def _line(self, source: HASHXOF, answers: int) -> tuple[float, ...]:
        """Return log-probabilities of answers that share 0.9 at random, evenly over all ways to share it."""
        first, *drawn = _uniform(source, 1 + answers)
        weights = sorted((-math.log(value) for value in drawn), reverse=True)
        if first >= self.options.yes_rate:  # then the second answer is the likeliest
            weights = weights[-1:] + weights[:-1]
        whole = sum(weights)
        return tuple(math.log(0.9 * weight / whole + 1e-6) for weight in weights)

    def _completion(self, request: GenerateRequest) -> Completion:
        said = _said(request)
        tokens = len(request.instruction.split()) + len(said.split())
        if self._holds(self.options.overflow_on, said):
            return Completion(candidates=(), tokens_in=tokens, error=_overflow(tokens))
        asked = self._hash("generate", request.instruction, said, _text_of(request.sampling))
        candidates = tuple(self._candidate(request, asked, seed) for seed in request.seeds)
        return Completion(candidates=candidates, tokens_in=tokens)

    def _candidate(self, request: GenerateRequest, asked: HASHXOF, seed: int) -> Candidate:
        source = _also(asked, str(seed))
        repeats, length = _uniform(source, 2)
        if request.sampling.temperature == 0 or repeats < self.options.repeat_rate:
            source = _also(asked, "repeat")
            _, length = _uniform(source, 2)
        least = (self.options.words + 1) // 2
        wanted = least + int(length * (2 * (self.options.words - least) + 1))
        kept = min(wanted, request.sampling.max_tokens)
        drawn = np.frombuffer(_also(source, "words").digest(2 * kept), np.uint16) % len(_WORDS)
        text = " ".join(_WORDS[drawn]).capitalize()
        stops = [at for at in (text.find(stop) for stop in request.sampling.stop) if at >= 0]
        finish = "stop" if stops or kept == wanted else "length"
        text = text[: min(stops)] if stops else text
        if finish == "stop" and not stops:
            text += "."
        if self.options.frame and _uniform(_also(source, "frame"), 1)[0] < self.options.frame_rate:
            text = self.options.frame.replace("%s", text)
        return Candidate(text=text, seed=seed, finish=finish, tokens_out=max(1, len(text.split())))

    def _require_senses(self, contents: Iterable[Content]) -> None:
        for kind in {medium.kind for content in contents for medium in media_of(content)}:
            if not getattr(self.options, f"{kind}s"):
                verb = "see" if kind == "image" else "hear"
                raise ConfigError(
                    f"model {self.name!r} cannot {verb} {kind}s: engine scripted has its option {kind}s off"
                )

    def _begin(self, texts: Sequence[str]) -> None:
        """Wait, and fail as the options say."""
        if self.options.latency_s:
            tell = current_teller()
            for slice_ in range(1, SLICES + 1):
                time.sleep(self.options.latency_s / SLICES)
                tell(slice_ / SLICES)
        for text in texts:
            if self._holds(self.options.poison, text):
                os._exit(1)  # as a crash of the engine would: no clean-up, no exception
            if self._holds(self.options.raise_on, text):
                raise ValueError(f"scripted failure: the request holds {self.options.raise_on!r}")

    def _hash(self, *source: str) -> HASHXOF:
        return hashlib.shake_128("\x1f".join((self.name, *source)).encode())

    @staticmethod
    def _holds(mark: str | None, text: str) -> bool:
        return mark is not None and mark in text


def _said(request: GenerateRequest) -> str:
    """Return all that was said, the prompt last."""
    return "\n".join([*(f"{turn.role}: {turn.content}" for turn in request.history), text_of(request.prompt)])


def _also(source: HASHXOF, text: str) -> HASHXOF:
    """Return the hash of the source and then the text."""
    further = source.copy()
    further.update(f"\x1f{text}".encode())
    return further


def _uniform(source: HASHXOF, count: int) -> list[float]:
    """Return numbers drawn evenly between 0 and 1, neither of them included."""
    return [(number + 0.5) / 2**32 for number in struct.unpack(f"{count}I", source.digest(4 * count))]


@lru_cache(maxsize=16)
def _text_of(sampling: Sampling) -> str:
    return sampling.model_dump_json()


def _overflow(tokens: int) -> str:
    return f"scripted overflow: {tokens} tokens do not fit"

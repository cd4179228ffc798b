"""Ask an endpoint, before anything is built, what a build will ask it: is the key right, and what can it not do?"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ModelError
from normloom.core.models.protocol import ModelSpec
from normloom.models.openai.engine import OpenaiModel
from normloom.models.openai.memory import remember, with_options
from normloom.models.openai.options import Options
from normloom.models.openai.replies.failures import FieldRefusedError, SpentError, UnansweredError
from normloom.models.openai.replies.reply import Reply, answer_logprobs
from normloom.models.registry import parse_options
from normloom.models.requests.reasoning import apart

TRIES, PATIENCE_S = 3, 60.0
_INSTRUCTION, _QUESTION = "Answer with one word, Yes or No.", "Is snow white?"
_ANSWERS = ("Yes", "No")
_LISTING = ("logprobs", "top_logprobs")
_JSON = {
    "type": "object",
    "properties": {"white": {"type": "boolean"}},
    "required": ["white"],
    "additionalProperties": False,
}
_SIDE = 64  # pixels of an image
_RATE = 16_000  # samples of a second of silence
_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _JSON, "strict": True}}


@dataclass(frozen=True)
class Found:
    """What a model's endpoint was found to do: the model with its options decided, and after how many requests."""

    spec: ModelSpec
    requests: int

    def __str__(self) -> str:
        options = self.spec.options
        scores = {
            "votes": f"each score is the share of {options.get('votes', 5)} sampled answers",
            "written": "each score is one written answer, yes or no and nothing between",
        }.get(str(options.get("scores")), "scores are read from log-probabilities")
        told = [
            f"{self.spec.model} at {options.get('base_url', 'OpenAI')} answers (asked {self.requests} times)",
            scores,
        ]
        left_out = {
            "seed": "it takes no seeds, so what is drawn cannot be drawn again",
            "response_format": "it takes no JSON schema, so JSON is asked for in words",
        }
        return "; ".join([*told, *(words for name, words in left_out.items() if name in options.get("omit", ()))])


def probe(spec: ModelSpec, *, media: Iterable[type[Medium]] = ()) -> Found:
    """Ask what a build will ask: a question, and one for JSON; each once more without what the endpoint refuses.

    One question is about one of each kind of `media`; raises ModelError if it is refused.

    Raises ConfigError for a key that is not set, ModelError for one that is refused, a model or an address that is not
    there and a field that the endpoint does not take and a build needs, SpentError for an endpoint that does not answer
    now.
    """
    omit = list(parse_options(Options, spec).omit)
    requests, scores = 0, None
    while scores is None:
        with closing(OpenaiModel(_hasty(spec, omit))) as model:
            try:
                scores = _scores(model)
                if "response_format" not in omit and not _takes_json(model):
                    omit.append("response_format")
                for kind in media:
                    _require_sense(model, kind)
            except FieldRefusedError as error:
                if error.field != "seed" or "seed" in omit:
                    raise
                omit.append("seed")
            requests += int(model.take_usage()["requests"])
    decided: dict[str, Any] = {}
    if scores != parse_options(Options, spec).scores:
        decided["scores"] = scores
    if len(omit) > len(parse_options(Options, spec).omit):
        decided["omit"] = sorted(omit)
    remember(spec, decided)
    return Found(with_options(spec, decided), requests)


def _hasty(spec: ModelSpec, omit: Sequence[str]) -> ModelSpec:
    """Return the model as it is asked beforehand: without much patience, and not in batches."""
    hasty = {"retries": TRIES - 1, "backoff_cap_s": 5.0, "timeout_s": PATIENCE_S}
    patience = {name: min(value, spec.options.get(name, value)) for name, value in hasty.items()}
    return with_options(spec, {**patience, "batch": False, "omit": list(omit)})


def _scores(model: OpenaiModel) -> str:
    """Return how the model gives scores; of `auto`, `written` if no log-probabilities of answers are listed."""
    wanted = model.options.scores
    if wanted not in ("auto", "logprobs"):
        _ask(model)
        return wanted
    return wanted if _lists_answers(model, required=wanted == "logprobs") else "written"


def _require_sense(model: OpenaiModel, kind: type[Medium]) -> None:
    """Ask about a white image, or about silence; raises ModelError if the endpoint refuses it."""
    example, verb = ("an image", "see") if kind is Image else ("a sound", "hear")
    asked = (_white(), "Is this image white?") if kind is Image else (_silence(), "Is this sound loud?")
    try:
        model.ask_plainly(_INSTRUCTION, asked)
    except SpentError:
        raise
    except UnansweredError as error:
        raise ModelError(
            f"model {model.spec.model!r} at {model.options.base_url} refuses {example} ({error}): it seems that it "
            f"cannot {verb}; name another model, or ask about text alone"
        ) from None


def _white() -> Image:
    from PIL import Image as Images

    stream = io.BytesIO()
    Images.new("RGB", (_SIDE, _SIDE), "white").save(stream, "PNG")
    return Image.of(stream.getvalue())


def _silence() -> Sound:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(bytes(2 * _RATE))
    return Sound.of(stream.getvalue())


def _takes_json(model: OpenaiModel) -> bool:
    """Return whether an answer by a schema is JSON; an answer that was cut off, or none, tells nothing against it."""
    try:
        reply = _ask(model, response_format=_FORMAT)
    except FieldRefusedError as error:
        if error.field != "response_format":
            raise
        return False
    text = apart(reply.choice.message.text)[1] if reply and reply.choice.finish_reason == "stop" else ""
    try:
        json.loads(text or "true")
    except ValueError:
        return False
    return True


def _lists_answers(model: OpenaiModel, *, required: bool) -> bool:
    """Return whether the likeliest answers to a question are listed; raises ModelError if they are not but must be."""
    try:
        reply = _ask(model, logprobs=True, top_logprobs=model.options.top_logprobs)
    except FieldRefusedError as error:
        if required or error.field not in _LISTING:
            raise
        _ask(model)
        return False
    if reply is None:
        return True  # this question was refused, no field of it
    listed = reply.choice.logprobs and reply.choice.logprobs.content
    if listed and (not required or answer_logprobs(listed, _ANSWERS)):
        return answer_logprobs(listed, _ANSWERS) is not None
    if required:
        raise ModelError(
            f"model {model.spec.model!r} at {model.options.base_url} lists no log-probabilities of its answers; set "
            "its options: {scores: written} or {scores: votes}"
        )
    return False


def _ask(model: OpenaiModel, **listing: Any) -> Reply | None:
    """Ask with all fields that a build sends; None if this one question is not answered, though others may be."""
    try:
        return model.ask_plainly(_INSTRUCTION, _QUESTION, **listing)
    except SpentError:
        raise
    except UnansweredError:
        return None

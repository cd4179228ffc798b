"""Ask an endpoint, before anything is built, what a build will ask it: is the key right, and what can it not do?"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from normloom.core.errors import ModelError
from normloom.core.protocol import ModelSpec
from normloom.models.openai.engine import OpenaiModel
from normloom.models.openai.failures import FieldRefusedError, SpentError, UnansweredError
from normloom.models.openai.memory import remember, with_scores
from normloom.models.openai.reply import Reply, answer_logprobs

TRIES, PATIENCE_S = 3, 60.0
_INSTRUCTION, _QUESTION = "Answer with one word, Yes or No.", "Is snow white?"
_ANSWERS = ("Yes", "No")
_LISTING = ("logprobs", "top_logprobs")


@dataclass(frozen=True)
class Found:
    """What a model's endpoint was found to do: the model with its scores decided, and after how many requests."""

    spec: ModelSpec
    requests: int

    def __str__(self) -> str:
        options = self.spec.options
        scores = {
            "votes": f"each score is the share of {options.get('votes', 5)} sampled answers",
            "written": "each score is one written answer, yes or no and nothing between",
        }.get(str(options.get("scores")), "scores are read from log-probabilities")
        times = "once" if self.requests == 1 else f"{self.requests} times"
        return f"{self.spec.model} at {options.get('base_url', 'OpenAI')} answers (asked {times}); {scores}"


def probe(spec: ModelSpec) -> Found:
    """Ask once what a build will ask, and once more if the endpoint takes no request for log-probabilities.

    Raises ConfigError for a key that is not set, ModelError for one that is refused, a model or an address that is not
    there and a field that the endpoint does not take, SpentError for an endpoint that does not answer now.
    """
    hasty = {"retries": TRIES - 1, "backoff_cap_s": 5.0, "timeout_s": PATIENCE_S}
    options = {
        **spec.options,
        **{name: min(value, spec.options.get(name, value)) for name, value in hasty.items()},
        "batch": False,
    }
    with closing(OpenaiModel(spec.model_copy(update={"options": options}))) as model:
        wanted = model.options.scores
        lists_answers = wanted in ("auto", "logprobs") and _lists_answers(model, required=wanted == "logprobs")
        if wanted not in ("auto", "logprobs"):
            _ask(model)
        requests = int(model.take_usage()["requests"])
    if wanted == "auto":
        remember(spec, lists_answers=lists_answers)
        return Found(spec if lists_answers else with_scores(spec, "written"), requests)
    return Found(spec, requests)


def _lists_answers(model: OpenaiModel, *, required: bool) -> bool:
    """Tell whether the likeliest answers to a question are listed; raises ModelError if they are not but must be."""
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

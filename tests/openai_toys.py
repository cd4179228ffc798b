"""What the tests of the openai engine ask, and of whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scripted_server import MODEL

from normloom.models import GenerateRequest, ModelSpec, Sampling, ScoreRequest, load_model
from normloom.models.openai.engine import OpenaiModel

VARIABLE = "SCRIPTED_KEY"
HASTE = {"backoff_cap_s": 0.02, "timeout_s": 30.0}


def spec_of(base_url: str, *, model: str = MODEL, **options: Any) -> ModelSpec:
    stated = {"base_url": base_url, "key_variable": VARIABLE, **HASTE, **options}
    return ModelSpec(engine="openai", model=model, options=stated)


@contextmanager
def asking(base_url: str, **options: Any) -> Iterator[OpenaiModel]:
    model = load_model(spec_of(base_url, **options))
    assert isinstance(model, OpenaiModel)
    try:
        yield model
    finally:
        model.close()


def scoring(context: str, questions: int = 3, answers: tuple[str, ...] = ("Yes", "No")) -> ScoreRequest:
    asked = tuple(f"question {k}" for k in range(questions))
    return ScoreRequest(instruction="judge", context=context, questions=asked, answers=answers)


def writing(prompt: str, *seeds: int, **sampling: Any) -> GenerateRequest:
    return GenerateRequest(instruction="write", prompt=prompt, seeds=seeds or (1,), sampling=Sampling(**sampling))

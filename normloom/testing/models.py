"""Models for tests: without weights, deterministic."""

from __future__ import annotations

from typing import Any, cast

from normloom.core.models.protocol import Embedder, LanguageModel, ModelSpec
from normloom.models import load_model


def scripted(name: str = "scripted", **options: Any) -> ModelSpec:
    """Return a model of the engine `scripted`: its answers are drawn from hashes of the requests.

    Options are those of the engine, for example `words` (length of a text), `yes_rate` (share of Yes answers),
    `latency_s`, `fail_on` (texts that it fails on).
    """
    return ModelSpec(engine="scripted", model=name, options=options)


def language_model(name: str = "scripted", **options: Any) -> LanguageModel:
    """Return the scripted model itself, to pass to the bare function of a step."""
    return cast("LanguageModel", load_model(scripted(name, **options)))


def embedder(name: str = "scripted", **options: Any) -> Embedder:
    """Return the scripted model as an encoder."""
    return cast("Embedder", load_model(scripted(name, **options)))

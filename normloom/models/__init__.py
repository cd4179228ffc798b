"""Models behind one small protocol; an engine's libraries are imported when a model is loaded."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import cast

from normloom.core.content import Image, Sound
from normloom.core.machine.processors import share_processors
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import (
    Candidate,
    Completion,
    Embedder,
    GenerateRequest,
    LanguageModel,
    ModelSpec,
    Sampling,
    ScoreRequest,
    Scores,
)
from normloom.core.models.routed_model import RoutedSpec
from normloom.models.identity import model_identity
from normloom.models.registry import engine_of

__all__ = [
    "Candidate",
    "Completion",
    "Embedder",
    "GenerateRequest",
    "Image",
    "LanguageModel",
    "ModelSpec",
    "Sampling",
    "ScoreRequest",
    "Scores",
    "Sound",
    "load_model",
    "model_identity",
]

_importing = threading.Lock()  # engines' libraries look at one another's modules, which must not be half imported


def load_model(spec: ModelSpec, *, threads: int | None = None) -> LanguageModel | Embedder:
    """Load the model that `spec` names into this process.

    `threads` bounds the processor threads of the whole process; None leaves the engine's default.
    Raises `ConfigError` for an unknown engine or option and `ModelError` if the model is unavailable.
    """
    if isinstance(spec, ProductSpec | RoutedSpec):
        from normloom.models.adapters import loaded_for, on_base, served_by
        from normloom.models.product_files import plain_spec

        if served := on_base(spec):
            return served_by(load_model(loaded_for(spec), threads=threads), served)
        if isinstance(spec, ProductSpec):
            spec = plain_spec(spec)
    engine = engine_of(spec)
    share_processors()
    with _importing:
        loader = getattr(import_module(engine.module), engine.attribute)
    return cast("LanguageModel | Embedder", loader(spec, threads=threads))

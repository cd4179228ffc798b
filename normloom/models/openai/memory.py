"""How endpoints were found to give scores, so that keys are computed without asking them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from normloom.core.cache import cache_dir
from normloom.core.protocol import ModelSpec
from normloom.models.openai.options import Options
from normloom.models.registry import parse_options

ENGINE = "openai"


def recall(spec: ModelSpec) -> ModelSpec:
    """Return the model with its scores decided, if they are `auto` and its endpoint was found to list no answers."""
    if spec.engine != ENGINE or parse_options(Options, spec).scores != "auto" or not _place(spec).exists():
        return spec
    return with_scores(spec, "written")


def remember(spec: ModelSpec, *, lists_answers: bool) -> None:
    """Remember what was found of a model."""
    place = _place(spec)
    if lists_answers:
        place.unlink(missing_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def with_scores(spec: ModelSpec, scores: str) -> ModelSpec:
    """Return the model with this way to score."""
    return spec.model_copy(update={"options": {**spec.options, "scores": scores}})


def _place(spec: ModelSpec) -> Path:
    """Return the file whose presence says that an endpoint lists no answers."""
    asked = {"model": spec.model, "revision": spec.revision, **parse_options(Options, spec).model_dump(mode="json")}
    digest = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=10).hexdigest()
    return cache_dir() / "endpoints-without-logprobs" / digest

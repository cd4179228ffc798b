"""What endpoints were found not to do, so that keys are computed without asking them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normloom.core.machine.cache import cache_dir
from normloom.core.models.protocol import ModelSpec
from normloom.models.openai.options import Options
from normloom.models.registry import parse_options

ENGINE = "openai"


def recall(spec: ModelSpec) -> ModelSpec:
    """Return the model with the options that were decided when its endpoint was asked last."""
    if spec.engine != ENGINE:
        return spec
    try:
        return with_options(spec, json.loads(_memory(spec).read_text()))
    except FileNotFoundError:
        return spec


def remember(spec: ModelSpec, decided: Mapping[str, Any]) -> None:
    """Remember the options that were decided for a model, if any."""
    file = _memory(spec)
    if decided:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dict(decided)))
    else:
        file.unlink(missing_ok=True)


def with_options(spec: ModelSpec, decided: Mapping[str, Any]) -> ModelSpec:
    """Return the model with these options."""
    return spec.model_copy(update={"options": {**spec.options, **decided}}) if decided else spec


def _memory(spec: ModelSpec) -> Path:
    """Return the file that holds what was decided."""
    asked = {"model": spec.model, "revision": spec.revision, **parse_options(Options, spec).model_dump(mode="json")}
    digest = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=10).hexdigest()
    return cache_dir() / "endpoints" / f"{digest}.json"

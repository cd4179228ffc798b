"""A profile under which SaVaCu is built from scripted models within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MODELS = (
    "models={embedder: {engine: scripted, model: e}, expander: {engine: scripted, model: m, options: {words: 12}}, "
    "classifier: {engine: scripted, model: c, options: {yes_rate: 0.05}}, "
    "judge: {engine: scripted, model: j, options: {yes_rate: 0.7}}, "
    "generators: {g1: {engine: scripted, model: m}, g2: {engine: scripted, model: n}}}"
)
SETTINGS = (
    MODELS,
    "classify.route=exhaustive",
    "source.limit=12",
    "rounds=1",
    "judge.calibration=none",
    "expand={minimum: 1, quota: 1, dimensions: [safety]}",
)


def write_profile(path: Path, *, actors: int = 0, address: str | None = None, **generator: Any) -> Path:
    """Write the profile; `generator` are options of the model of the stage `generate_0_g1`."""
    models: dict[str, Any] = {
        name: {"engine": "scripted", "model": name} for name in ("embedder", "classifier", "expander", "judge")
    }
    models["generators"] = {"g1": {"engine": "scripted", "model": "generator", "options": generator}}
    settings = {"models": models, "expand": {"minimum": 1, "quota": 1, "dimensions": ["safety"]}, "rounds": 0}
    resources = {"actors": actors, "threads": 1, "address": address}
    path.write_text(yaml.safe_dump({"resources": resources, "systems": {"savacu": settings}}))
    return path

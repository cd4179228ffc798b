"""Whether a model sees images, as far as can be told without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.model_roles import each_of
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.models.files.locate import find
from normloom.models.registry import engine_of, parse_options

CONFIG = "config.json"
SEEING = "transformers, vllm or openai"


def require_sight(stages: Iterable[Stage]) -> None:
    """Raise ConfigError if a stage asks about images and its model cannot see them."""
    for stage in stages:
        for spec in each_of(stage.model) if stage.model and stage.images else ():
            if reason := blind(spec):
                raise ConfigError(
                    f"stage {stage.name!r} asks about images, and model {spec.title!r} cannot see them: {reason}"
                )


def blind(spec: ModelSpec) -> str | None:
    """Return why a model cannot see images, None if it can or nobody knows, as of one that is only on the hub."""
    engine = engine_of(spec)
    if engine.sees is None:
        return f"engine {spec.engine!r} hands models no images; use {SEEING}"
    if engine.sees != "files":
        options = parse_options(import_module(engine.sees).Options, spec)
        return None if getattr(options, "images", False) else f"its option images is off (engine {spec.engine!r})"
    if isinstance(spec, ProductSpec) and not spec.adapter:
        return None
    found = _on_disk(spec)
    if found and (found.is_file() or not config_sees(found)):
        return f"{found / CONFIG if found.is_dir() else found} describes a model of text alone; name another"
    return None


def _on_disk(spec: ModelSpec) -> Path | None:
    """Return the file or folder of a model if it is on this machine; no network is used."""
    try:
        if found := find(spec.model):
            return found
    except ModelError:
        return None  # what is wrong is said where models are looked for
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(spec.model, CONFIG, revision=spec.revision)
    return Path(cached).parent if isinstance(cached, str) else None


def config_sees(directory: Path) -> bool:
    """Tell whether the configuration of a model in a folder has a part that sees."""
    path = directory / CONFIG
    return path.is_file() and "vision_config" in json.loads(path.read_text(encoding="utf-8"))

"""Whether a model takes images and sounds, as far as can be told without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

from normloom.core.content import Image, Medium, Sound
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.model_roles import each_of
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.models.files.locate import find
from normloom.models.registry import engine_of, parse_options

CONFIG = "config.json"
TAKING = "transformers, vllm or openai"
UNREAD = (
    "it counts places in images in three dimensions (M-RoPE), which engine 'transformers' does not; use engine vllm, "
    "or a model such as SmolVLM"
)
_VERBS: Mapping[type[Medium], str] = {Image: "see", Sound: "hear"}
_PARTS: Mapping[type[Medium], str] = {Image: "vision_config", Sound: "audio_config"}


def require_senses(stages: Iterable[Stage]) -> None:
    """Raise ConfigError if a stage asks about images or sounds and its model does not take them.

    So it does for a model that its engine cannot read at all.
    """
    for stage in stages:
        for spec in each_of(stage.model) if stage.model else ():
            if _unread(spec):
                raise ConfigError(f"stage {stage.name!r}: model {spec.title!r} cannot be asked: {UNREAD}")
        for kind in stage.media:
            for spec in each_of(stage.model) if stage.model else ():
                if reason := lacks(spec, kind):
                    raise ConfigError(
                        f"stage {stage.name!r} asks about {kind.kind}s, and model {spec.title!r} cannot "
                        f"{_VERBS[kind]} them: {reason}"
                    )


def lacks(spec: ModelSpec, kind: type[Medium]) -> str | None:
    """Return why a model does not take a kind of media, None if it does or nobody knows (one that is on the hub)."""
    engine = engine_of(spec)
    knows = engine.sees if kind is Image else engine.hears
    if knows is None:
        return f"engine {spec.engine!r} hands models no {kind.kind}s; use {TAKING}"
    if knows != "files":
        options, name = parse_options(import_module(knows).Options, spec), f"{kind.kind}s"
        return None if getattr(options, name, False) else f"its option {name} is off (engine {spec.engine!r})"
    if isinstance(spec, ProductSpec) and not spec.adapter:
        return None
    found = _on_disk(spec)
    if found and (found.is_file() or kind not in config_senses(found)):
        where = found / CONFIG if found.is_dir() else found
        described = "of text alone" if found.is_file() or not config_senses(found) else f"that takes no {kind.kind}s"
        return f"{where} describes a model {described}; name another"
    return None


def _unread(spec: ModelSpec) -> bool:
    """Return whether a model that is on this machine counts places in a way that its engine does not."""
    if not engine_of(spec).flat or (isinstance(spec, ProductSpec) and not spec.adapter):
        return False
    found = _on_disk(spec)
    return found is not None and counts_in_three(found)


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


def counts_in_three(directory: Path) -> bool:
    """Return whether a model in a folder counts positions in three dimensions, like Qwen2-VL and its successors."""
    path = directory / CONFIG
    return path.is_file() and '"mrope_section"' in path.read_text(encoding="utf-8")


def config_senses(directory: Path) -> tuple[type[Medium], ...]:
    """Return the kinds of media that the configuration of a model in a folder has a part for."""
    path = directory / CONFIG
    stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return tuple(kind for kind, part in _PARTS.items() if part in stated)

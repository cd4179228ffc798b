"""What a model's results depend on, for the stage key; found without importing torch or transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from normloom.core.errors import ConfigError, ModelError
from normloom.core.machine.versions import installed_version
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.product_model import ProductFiles, ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.models.files.digests import file_digest, joint_digest
from normloom.models.files.locate import find, snapshot
from normloom.models.registry import Engine, engine_of, parse_options

_WEIGHTS = ("*.safetensors",)
_PACKED = (  # weights inside packages, in formats of their own
    ("weights.npz",),  # of the engine `use`
    ("efficientnet-lite0-57934424.pth",),
    ("e5-small-q4.bin",),
    ("pretrained.pt",),  # of Resemblyzer
)
_EXPORTED = ("openvino_model.xml", "openvino_model.bin", *_WEIGHTS)  # a directory that OpenVINO's export made
_CHAT = ("chat_template.jinja", "chat_template.json")
_TOKENIZER = ("tokenizer*.json", "tokenizer.model", "sp.model", "vocab.*", "merges.txt", "special_tokens_map.json")
_CONFIG = (
    *("config.json", "generation_config.json", "sentence_bert_config.json", "1_Pooling/config.json"),
    *("preprocessor_config.json", "processor_config.json"),  # how images are cut and scaled
)


class IdentifiedSpec(ModelSpec):
    """A model whose identity was found on the machines that run it."""

    identity: Mapping[str, str] = Field(exclude=True)


def model_identity(spec: ModelSpec) -> dict[str, str]:
    """Return the fields that say which results `spec` gives: engine, versions, files, settings.

    `dtype` is the setting: `auto` is resolved by the actor, on its own device. The first call reads the weights;
    later ones compare size and time of change. For a model on the hub the commit stands for the files, so a
    moving revision is asked of the hub once a process. Raises `ConfigError` and `ModelError`.
    """
    if isinstance(spec, IdentifiedSpec):
        return dict(spec.identity)
    if isinstance(spec, RolesSpec):
        parts = {role: model_identity(one) for role, one in spec.roles.items()}
        told = {f"{role}.{name}": value for role, fields in parts.items() for name, value in fields.items()}
        return {"engine": spec.engine, "model": spec.model, **told}
    if isinstance(spec, ProductFiles):
        return {"files": "product"}
    engine = engine_of(spec)
    if isinstance(spec, ProductSpec):
        return _of_product(spec, engine)
    if isinstance(spec, RoutedSpec):
        return _of_routed(spec, engine)
    return {
        "engine": f"{spec.engine} {engine.version}",
        **{library: _version(library) for library in engine.libraries},
        "model": spec.model,
        "revision": spec.revision or "",
        "dtype": spec.dtype,
        "options": json.dumps(_options(spec), sort_keys=True, default=str),
        **(_files(spec) if engine.files else {}),
    }


def _of_product(spec: ProductSpec, engine: Engine) -> dict[str, str]:
    """Return the identity of a model out of a product, whose content is what the stage reads."""
    kind = "adapter" if spec.adapter else "weights"
    if kind not in engine.products:
        raise ConfigError(
            f"model out of {spec.product!r}: engine {spec.engine!r} cannot load the {kind} of a product; "
            "use transformers or vllm"
        )
    if spec.adapter:
        applies = {"peft": _version("peft")} if engine.adapters is None else {}  # else the engine itself applies it
        return {**model_identity(spec.plain), "adapter": "product", **applies}
    return {
        "engine": f"{spec.engine} {engine.version}",
        **{library: _version(library) for library in engine.libraries},
        "model": "product",
        "dtype": spec.dtype,
        "options": json.dumps(_options(spec), sort_keys=True, default=str),
    }


def _of_routed(spec: RoutedSpec, engine: Engine) -> dict[str, str]:
    """Return the identity of a base with a router; the content of its products is what the stage reads."""
    if engine.adapters is None:
        raise ConfigError(
            f"model {spec.title!r}: engine {spec.engine!r} can neither mix nor choose adapters by request; "
            "use transformers (mixes) or vllm (chooses the likeliest)"
        )
    if spec.encoder is None and not engine.states:
        raise ConfigError(
            f"model {spec.title!r}: engine {spec.engine!r} does not return the states that its router reads; "
            "name an encoder, such as {engine: embedding, model: all-MiniLM-L6-v2}"
        )
    calibrated = "no" if spec.calibrators is None else "by neighbourhood" if spec.local else "by one temperature"
    encoder = model_identity(spec.encoder) if spec.encoder else {}
    return {
        **model_identity(spec.plain),
        "experts": json.dumps(list(spec.experts)),
        "calibrated": calibrated,
        **{f"encoder.{name}": value for name, value in encoder.items()},
    }


def _options(spec: ModelSpec) -> dict[str, Any]:
    """Return the options that results depend on."""
    module = engine_of(spec).options
    if module is None:
        return dict(spec.options)
    options: BaseModel = parse_options(import_module(module).Options, spec)
    return options.model_dump(mode="json", exclude_defaults=True)


def _version(library: str) -> str:
    try:
        return installed_version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _files(spec: ModelSpec) -> dict[str, str]:
    found = find(spec.model)
    if found is None:
        return dict.fromkeys(("weights", "tokenizer", "chat_template", "configuration"), f"commit {_commit(spec)}")
    if found.is_file():  # a GGUF file holds all four
        return dict.fromkeys(("weights", "tokenizer", "chat_template", "configuration"), file_digest(found))
    patterns = next((made for made in (_EXPORTED, *_PACKED) if (found / made[0]).is_file()), _WEIGHTS)
    weights = _matching(found, patterns)
    if not weights:
        raise ModelError(f"model {spec.model!r}: no {patterns[0]} file in {found}")
    return {
        "weights": joint_digest(weights),
        "tokenizer": joint_digest(_matching(found, _TOKENIZER)),
        "chat_template": joint_digest(_matching(found, _CHAT)),
        "configuration": joint_digest(_matching(found, _CONFIG)),
    }


def _matching(directory: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in directory.glob(pattern)})


def _commit(spec: ModelSpec) -> str:
    return _snapshot_name(spec.model, spec.revision)


@lru_cache
def _snapshot_name(model: str, revision: str | None) -> str:
    return snapshot(ModelSpec(model=model, revision=revision), weights=False).name

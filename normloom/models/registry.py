"""The installed engines: where each is defined and what its results depend on besides the weights.

A package adds one by an entry point of the group `normloom.engines` that names an `Engine`, as Normloom does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from normloom.core.errors import ConfigError
from normloom.core.machine.declared import declared, loaded
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import ProcessSpec
from normloom.core.models.protocol import GenerateRequest, ModelSpec

_Options = TypeVar("_Options", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine: the class that runs it and the libraries whose versions may change its results.

    Raise `version` whenever the same request may get different text or numbers. `parts` is how many parts an
    actor processes at once, so that the batch does not drain at the end of each, and `rows` how many rows these
    should have together: it processes more parts if they are small. A model that is `Batching` gets parts by what it
    has yet to write. `files` says that the model
    consists of local files or files on the hub, `remote` that it runs elsewhere: one actor without a GPU sends the
    requests and keeps the rate limits. `options` is the module with its `Options` if those declared with
    `exclude=True` affect only speed and cost: they stay out of the key. `imports` are the modules that must be
    installed where the model runs, by the command `install`. `products` says what it loads from a product: `weights`,
    `adapter`. `adapters` are the options with which it loads a base model that serves several adapters (`Adaptable`);
    None if it loads an adapter with its base as a separate model. `states` says that its language models are also
    `Embedder`s. `tolerance` is how far a rebuilt part may differ: texts are equal and numbers differ by at most this
    (0: bit-equal); None if nothing is promised.
    `random` says that its answers are meaningless: it is for tests. `sees` and `hears` say where to find out
    whether a model takes images, and sounds: `files` its configuration, else the module whose `Options` have a field
    `images` and `sounds`; None if none does. `flat` says that it counts positions in one dimension, so that models
    that count those of images in three (M-RoPE) cannot be used.
    """

    module: str
    attribute: str
    version: int
    tolerance: float | None = None
    libraries: tuple[str, ...] = ()
    parts: int = 1
    rows: int = 0
    files: bool = True
    remote: bool = False
    options: str | None = None
    imports: tuple[str, ...] = ()
    install: str | None = None
    products: frozenset[str] = frozenset()
    adapters: Mapping[str, Any] | None = None
    states: bool = False
    random: bool = False
    sees: str | None = None
    hears: str | None = None
    flat: bool = False


GROUP = "normloom.engines"
MOST_PARTS = 128  # that an actor works at because they are small: each has a thread
_ROLES = Engine(module="normloom.models.roles", attribute="Roles", version=1, files=False)
_PROCESS = Engine(module="normloom.models.process", attribute="no_model", version=1, files=False)


@cache
def _loaded(name: str) -> Engine:
    point = declared(GROUP, "engine")[name]
    engine = loaded(point, "engine", Engine)
    package = point.dist.name if point.dist else None
    if package in (None, "normloom"):
        return engine
    return replace(engine, libraries=tuple(dict.fromkeys([*engine.libraries, package])))  # its version enters keys


def is_random(engine: str) -> bool:
    """Return whether an engine's answers are meaningless; `engine` is its name, with its version as in keys."""
    name = engine.partition(" ")[0]
    return name in declared(GROUP, "engine") and _loaded(name).random


def engine_of(spec: ModelSpec) -> Engine:
    """Return the engine that `spec` names; raises `ConfigError` if no installed package has it."""
    if isinstance(spec, ProcessSpec):
        return _PROCESS
    if isinstance(spec, RolesSpec):
        return _ROLES
    installed = declared(GROUP, "engine")
    if spec.engine not in installed:
        known = ", ".join(installed)
        raise ConfigError(f"model {spec.model!r}: unknown engine {spec.engine!r}; available: {known}")
    return _loaded(spec.engine)


def parts_at_once(spec: ModelSpec, rows: int) -> int:
    """Return how many parts of this many rows an actor with this model processes at once."""
    engine = engine_of(spec)
    return spec.parts or max(engine.parts, min(ceil(engine.rows / max(rows, 1)), MOST_PARTS))


def most_parts(spec: ModelSpec) -> int:
    """Return how many of the smallest possible parts an actor with this model processes at once."""
    return parts_at_once(spec, 1)


def require_free_text(requests: Iterable[GenerateRequest], engine: str) -> None:
    """Raise ConfigError if JSON is requested from an engine without structured output."""
    if any(request.json_schema is not None for request in requests):
        raise ConfigError(f"engine {engine!r} has no structured output (json_schema); use vllm, openvino or openai")


def parse_options(kind: type[_Options], spec: ModelSpec) -> _Options:
    """Return `spec.options` checked as `kind`; raises `ConfigError` naming each wrong option."""
    try:
        return kind.model_validate(dict(spec.options))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        known = ", ".join(kind.model_fields)
        raise ConfigError(
            f"model {spec.model!r}, options of engine {spec.engine!r}: {wrong}. Known options: {known}"
        ) from None

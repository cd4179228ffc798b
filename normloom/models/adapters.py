"""Adapters that share an engine: a base model is loaded once, and serves each of its adapters as itself.

Engines that can do this say so in `Engine.adapters`; the others load an adapter with its base as a model of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from normloom.core.errors import ModelError
from normloom.core.machine.object_path import fetched
from normloom.core.product_model import ProductSpec
from normloom.core.protocol import Adaptable, LanguageModel, ModelSpec
from normloom.models.product_files import require_files
from normloom.models.registry import engine_of


def loaded_for(spec: ModelSpec, uses: Iterable[ModelSpec] = ()) -> ModelSpec:
    """Return the model that is loaded for `spec` in view of all `uses`.

    It is the base for an adapter that an engine serves next to others, and for the base itself if one of the uses is
    such an adapter of it; else `spec`.
    """
    shared = shared_base(spec)
    if shared is None or isinstance(spec, ProductSpec):
        return shared or spec
    return shared if any(isinstance(use, ProductSpec) and shared_base(use) == shared for use in uses) else spec


def adapter_in(spec: ModelSpec | None) -> str | None:
    """Return the folder of an adapter that shares the engine of its base; None for any other model."""
    if spec is None or not isinstance(spec, ProductSpec) or shared_base(spec) is None:
        return None
    require_files(spec)
    return spec.folder


def adapted(model: object | None, folder: str) -> LanguageModel:
    """Return a loaded base model with the adapter in a folder; raises ModelError if it cannot take it."""
    if not isinstance(model, Adaptable):
        raise ModelError(f"a model of type {type(model).__name__} serves no adapters: {folder}")
    return model.adapted(fetched(folder))


def shared_base(spec: ModelSpec) -> ModelSpec | None:
    """Return the base model as it is loaded to serve adapters; None if its engine loads each adapter by itself."""
    options = engine_of(spec).adapters
    if options is None or (isinstance(spec, ProductSpec) and not spec.adapter):
        return None
    fields = {name: getattr(spec, name) for name in ModelSpec.model_fields}
    return ModelSpec(**{**fields, "options": {**options, **spec.options}})

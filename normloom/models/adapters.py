"""Models that share an engine: a base is loaded once, and serves each of its adapters, and those that a router mixes.

Engines that can do this say so in `Engine.adapters`; the others load an adapter with its base as a model of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard

from normloom.core.errors import ModelError
from normloom.core.machine.object_path import fetched
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import Adaptable, LanguageModel, ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.models.product_files import require_files
from normloom.models.registry import engine_of


def loaded_for(spec: ModelSpec, uses: Iterable[ModelSpec] = ()) -> ModelSpec:
    """Return the model that is loaded for `spec` in view of all `uses`.

    It is the base for what an engine serves on it next to others, and for the base itself if one of the uses is served
    on it; else `spec`.
    """
    shared = shared_base(spec)
    if shared is None or _is_made_of_products(spec):
        return shared or spec
    return shared if any(_is_made_of_products(use) and shared_base(use) == shared for use in uses) else spec


def on_base(spec: ModelSpec | None) -> ModelSpec | None:
    """Return a model, with its files found, that is served by the engine of its base; None for any other."""
    if spec is None or not _is_made_of_products(spec) or shared_base(spec) is None:
        return None
    for one in spec.experts.values() if isinstance(spec, RoutedSpec) else [spec]:
        require_files(one)
    return spec


def served_by(base: object | None, spec: ModelSpec) -> LanguageModel:
    """Return the model that a loaded base serves; raises ModelError if it cannot."""
    if isinstance(spec, RoutedSpec):
        from normloom.models.routing.routed import RoutedModel

        return RoutedModel(base, spec)
    if not isinstance(spec, ProductSpec) or spec.folder is None:
        raise ModelError(f"model {spec.title!r}: its product has not been built yet")
    return adapted(base, spec.folder)


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


def _is_made_of_products(spec: ModelSpec) -> TypeGuard[ProductSpec | RoutedSpec]:
    return isinstance(spec, ProductSpec | RoutedSpec)

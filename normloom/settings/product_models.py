"""Models that settings name as products: `{model: "product:persodpo/train"}`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from normloom.core.errors import ConfigError
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage, published_stage
from normloom.models.product_files import base_of
from normloom.store.store import Store

PREFIX = "product:"


def out_of_products(store: Store, *, reader: str) -> Callable[[ModelSpec], ModelSpec]:
    """Return what puts the newest product of a stage in the place of a model named `product:SYSTEM/STAGE`.

    A product with an adapter is served with the base model that it names. Raises ConfigError if there is none.
    """

    @cache  # one stage of the flow for each product
    def found(name: str) -> tuple[Stage, str | None]:
        system, _, stage = name.removeprefix(PREFIX).partition("/")
        manifest = store.current(system, stage) if stage and system in store.systems() else None
        if manifest is None:
            raise ConfigError(f"model {name!r}: {store.root} has no product {system}/{stage}; build {system} first")
        if not manifest.attached:
            raise ConfigError(f"model {name!r}: {manifest.ref} has rows only, no model files")
        return published_stage(manifest.ref, reader=reader), base_of(store.folder(manifest.ref))

    def change(spec: ModelSpec) -> ModelSpec:
        if isinstance(spec, ProductSpec) or not spec.model.startswith(PREFIX):
            return spec
        stage, base = found(spec.model)
        like = spec.model_copy(update={"model": base or stage.name})
        return ProductSpec.of(stage, like, adapter=base is not None)

    return change

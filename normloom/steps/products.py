"""Products as models and values: `with_adapter`, `model_from`, `routed`, `files_of`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normloom.core.errors import ConfigError
from normloom.core.models.product_model import ProductFiles, ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.stage import Stage

_FEWEST = 2


def with_adapter(base: ModelSpec, product: Stage) -> ProductSpec:
    """Return the base model with the LoRA adapter that a stage produces (PEFT's files).

    Raises ConfigError for a stage without files, or a base that is itself a product.
    """
    return ProductSpec.of(_with_files(product), _named(base), adapter=True)


def routed(
    base: ModelSpec,
    experts: Mapping[str, Stage],
    router: Stage,
    *,
    encoder: ModelSpec | None = None,
    calibrators: Stage | None = None,
    local: bool = False,
) -> RoutedSpec:
    """Return the base model with several LoRA adapters and a router that weighs them for each request.

    `experts` are the stages whose products are the adapters, by the names that the router was trained with. `encoder`
    computes the states that it was trained on (default: the base itself). `calibrators` calibrate the weights: by one
    temperature, or with `local` by that of the request's neighbourhood. Engine transformers mixes the adapters by
    weight; vllm and others that serve adapters use the likeliest. Raises ConfigError for stages without files, fewer
    than two experts, or a base that is itself a product.
    """
    if len(experts) < _FEWEST:
        raise ConfigError(f"a router chooses among at least {_FEWEST} experts, got {len(experts)}")
    return RoutedSpec(
        **dict(_named(base)),
        experts={name: with_adapter(base, product) for name, product in experts.items()},
        router=files_of(router),
        calibrators=files_of(calibrators) if calibrators else None,
        local=local,
        encoder=None if encoder == base else encoder,
    )


def model_from(product: Stage, **run: Any) -> ProductSpec:
    """Return the model whose full weights are a stage's product (safetensors, config and tokenizer).

    `run` are fields of the model spec other than `model`, such as `engine`, `dtype`, `threads`. Raises ConfigError for
    a stage without files.
    """
    like = ModelSpec(**run, model=_with_files(product).name)
    return ProductSpec.of(product, like, adapter=False)


def files_of(product: Stage) -> ProductFiles:
    """Return a product's files, for a step that takes them as a value and reads them itself (`files.path`).

    Raises ConfigError for a stage without files.
    """
    return ProductFiles.of(_with_files(product), ModelSpec(model=product.name), adapter=False)


def _named(base: ModelSpec) -> ModelSpec:
    if isinstance(base, ProductSpec):
        raise ConfigError(f"model {base.product!r} is a product itself: an adapter's base must be a model with a name")
    return base


def _with_files(product: Stage) -> Stage:
    if product.files is None and product.table is None:
        raise ConfigError(
            f"stage {product.name!r} has no files, so it cannot be used as a model: declare @step(files=...)"
        )
    return product

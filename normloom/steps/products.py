"""Products as models and values: `with_adapter(base, product)`, `model_from(product)`, `files_of(product)`."""

from __future__ import annotations

from typing import Any

from normloom.core.errors import ConfigError
from normloom.core.product_model import ProductFiles, ProductSpec
from normloom.core.protocol import ModelSpec
from normloom.core.stage import Stage


def with_adapter(base: ModelSpec, product: Stage) -> ProductSpec:
    """Return the base model with the LoRA adapter that is the product of a stage (PEFT's files).

    Raises ConfigError for a stage without files, and for a base that is a product itself.
    """
    if isinstance(base, ProductSpec):
        raise ConfigError(f"model {base.product!r} is a product itself: an adapter's base must be a model with a name")
    return ProductSpec.of(_with_files(product), base, adapter=True)


def model_from(product: Stage, **run: Any) -> ProductSpec:
    """Return the model whose whole weights are the product of a stage (safetensors, config and tokenizer).

    `run` are fields of the model spec other than `model`, such as `engine`, `dtype`, `threads`. Raises ConfigError for
    a stage without files.
    """
    like = ModelSpec(**run, model=_with_files(product).name)
    return ProductSpec.of(product, like, adapter=False)


def files_of(product: Stage) -> ProductFiles:
    """Return the files of a product, for a step that takes them as a value and reads them itself (`files.path`).

    Raises ConfigError for a stage without files.
    """
    return ProductFiles.of(_with_files(product), ModelSpec(model=product.name), adapter=False)


def _with_files(product: Stage) -> Stage:
    if product.files is None and product.table is None:
        raise ConfigError(
            f"stage {product.name!r} has no files, so no model can be made of it: declare @step(files=...)"
        )
    return product

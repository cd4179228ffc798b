"""A model whose files are a product of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from normloom.core.machine.object_path import fetched
from normloom.core.models.protocol import ModelSpec

if TYPE_CHECKING:
    from normloom.core.stage import Stage


class ProductSpec(ModelSpec):
    """A model from a product: full weights, or with `adapter` the model `model` with a LoRA adapter.

    `product` names the stage that makes it. `folder` holds its files, None until it is published.
    """

    product: str
    adapter: bool = False
    folder: str | None = None
    _stage: Any = PrivateAttr(default=None)

    @classmethod
    def of(cls, stage: Stage, like: ModelSpec, *, adapter: bool) -> Self:
        """Return the model from a stage's product, run like `like`."""
        spec = cls(**_plain(like), product=stage.name, adapter=adapter)
        spec._stage = stage
        return spec

    @property
    def stage(self) -> Stage:
        """The stage that makes the product."""
        stage: Stage = self._stage
        return stage

    @property
    def title(self) -> str:
        """The product, with the base of an adapter."""
        return f"{self.model} with {self.product}" if self.adapter else self.product

    @property
    def plain(self) -> ModelSpec:
        """The model spec without its product: that of the base model of an adapter."""
        return ModelSpec(**_plain(self))

    def placed(self, folder: str) -> Self:
        """Return the model with its files in a folder, small enough to travel."""
        return type(self)(**{**_plain(self), "product": self.product, "adapter": self.adapter, "folder": folder})


class ProductFiles(ProductSpec):
    """The files of a product, for a step that reads them itself: no engine loads them."""

    @property
    def path(self) -> Path:
        """The folder with the files; raises ValueError outside of a build."""
        if self.folder is None:
            raise ValueError(f"the product {self.product!r} has not been built yet")
        return fetched(self.folder)


def _plain(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ModelSpec.model_fields}

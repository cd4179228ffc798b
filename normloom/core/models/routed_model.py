"""A base model whose adapters are chosen, or mixed, by a router that reads each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pydantic import SerializeAsAny

from normloom.core.models.product_model import ProductFiles, ProductSpec
from normloom.core.models.protocol import ModelSpec


class RoutedSpec(ModelSpec):
    """A base model with several adapters, and a router that gives each a weight for each request.

    `experts` are adapters of the base by the name that the router knows them by. `calibrators`, if there are any, set
    the temperature of the weights; with `local` that of the request's neighbourhood, else one for all. `encoder` makes
    the states that the router reads; None lets the base make them.
    """

    experts: Mapping[str, SerializeAsAny[ProductSpec]]
    router: SerializeAsAny[ProductFiles]
    calibrators: SerializeAsAny[ProductFiles] | None = None
    local: bool = False
    encoder: SerializeAsAny[ModelSpec] | None = None

    @property
    def title(self) -> str:
        """The base with its experts."""
        return f"{self.model} routed to {', '.join(self.experts)}"

    @property
    def plain(self) -> ModelSpec:
        """The model spec of the base."""
        return ModelSpec(**{name: getattr(self, name) for name in ModelSpec.model_fields})

    def made_of(self) -> Iterator[ModelSpec]:
        """Yield its component models other than the base: experts, router, calibrators, encoder."""
        yield from self.experts.values()
        yield from (one for one in (self.router, self.calibrators, self.encoder) if one is not None)

    def each(self, change: Callable[[ModelSpec], ModelSpec]) -> RoutedSpec:
        """Return it with each of its parts changed."""
        return self.model_copy(
            update={
                "experts": {name: change(one) for name, one in self.experts.items()},
                "router": change(self.router),
                "calibrators": self.calibrators and change(self.calibrators),
                "encoder": self.encoder and change(self.encoder),
            }
        )

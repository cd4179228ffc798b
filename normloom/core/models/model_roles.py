"""Several models in one step, by the role that each plays in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import SerializeAsAny

from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec


class RolesSpec(ModelSpec):
    """Models that one process holds side by side, by role; each is a model spec of its own."""

    engine: Literal["roles"] = "roles"
    roles: Mapping[str, SerializeAsAny[ModelSpec]]

    @classmethod
    def of(cls, roles: Mapping[str, ModelSpec]) -> RolesSpec:
        """Return the models of these roles."""
        return cls(model=" + ".join(f"{role} {spec.model}" for role, spec in roles.items()), roles=dict(roles))


def each_of(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Yield the models that a spec names: those of its roles, or itself."""
    if isinstance(spec, RolesSpec):
        yield from spec.roles.values()
    else:
        yield spec


def named_by(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Yield the models that a spec names, those that one with a router is made of among them."""
    for one in each_of(spec):
        if isinstance(one, RoutedSpec):
            yield from one.made_of()
        else:
            yield one

"""The stages of a flow in execution order, and the models they need in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from normloom.core.errors import ConfigError
from normloom.core.models.model_roles import RolesSpec, each_of
from normloom.core.models.needs import Needs
from normloom.core.models.product_model import ProductSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.core.stage import Stage


def stages_of(*ends: Stage) -> list[Stage]:
    """Return the given stages and all upstream of them, each after those it reads.

    Raises ConfigError when two different stages share a name.
    """
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if ordered.get(stage.name) is stage:
            return
        for upstream in stage.upstream:
            visit(upstream)
        if stage.name in ordered:
            raise ConfigError(f"two stages of the flow are named {stage.name!r}: give each its own name")
        ordered[stage.name] = stage

    for end in ends:
        visit(end)
    return list(ordered.values())


def with_models(ends: Sequence[Stage], change: Callable[[ModelSpec], ModelSpec]) -> list[Stage]:
    """Return the last stages of the flow with each model changed; the same stages if none changes."""
    if all(change(spec) == spec for stage in stages_of(*ends) for spec in stage.specs):
        return list(ends)
    return _remade(ends, change, {})


def with_needs(ends: Sequence[Stage], needs: Mapping[str, Needs]) -> list[Stage]:
    """Return the last stages of the flow, the named ones with other needs; the same stages if none is named."""
    return _remade(ends, lambda spec: spec, needs) if needs else list(ends)


def _remade(ends: Sequence[Stage], change: Callable[[ModelSpec], ModelSpec], needs: Mapping[str, Needs]) -> list[Stage]:
    made: dict[str, Stage] = {}

    def changed(spec: ModelSpec) -> ModelSpec:
        if isinstance(spec, RolesSpec):
            return RolesSpec.of({role: changed(one) for role, one in spec.roles.items()})
        if isinstance(spec, RoutedSpec):
            return spec.each(changed)
        new = change(spec)
        if isinstance(new, ProductSpec) and new.stage.name in made:
            return type(new).of(made[new.stage.name], new, adapter=new.adapter)
        return new

    for stage in stages_of(*ends):
        values = {name: changed(one) if isinstance(one, ModelSpec) else one for name, one in stage.values.items()}
        made[stage.name] = replace(
            stage,
            model=changed(stage.model) if stage.model else None,
            values=values,
            inputs=tuple(made[upstream.name] for upstream in stage.inputs),
            sides=tuple(made[upstream.name] for upstream in stage.sides),
            needs=needs.get(stage.name, stage.needs),
        )
    return [made[end.name] for end in ends]


def held(stages: Sequence[Stage]) -> list[ModelSpec]:
    """Return what each stage holds while it runs, in order: its model, or its own processes."""
    return [spec for stage in stages if (spec := stage.holds)]


def model_uses(stages: Sequence[Stage]) -> list[ModelSpec]:
    """Return the model of each stage that has one, those of all roles if it has several, in order."""
    return [spec for stage in stages if stage.model for spec in each_of(stage.model)]


def farthest(idle: Iterable[str], upcoming: Sequence[str]) -> str:
    """Return the idle model to unload: one that is not used again, or else the one used last (Belady's rule)."""
    return max(idle, key=lambda name: upcoming.index(name) if name in upcoming else len(upcoming))


def load_order(uses: Sequence[str], fits: Callable[[Sequence[str]], bool], passing: Collection[str] = ()) -> list[str]:
    """Return the models in load order, given their uses in order.

    `fits` says whether models have room side by side; a model on its own is always loaded. `passing` are not models
    but processes that need room, hold nothing and end after use.
    """
    resident: list[str] = []
    loads: list[str] = []
    for position, name in enumerate(uses):
        if name not in resident:
            while resident and not fits([*resident, name]):
                resident.remove(farthest(resident, uses[position:]))
            if name not in passing:
                resident.append(name)
                loads.append(name)
    return loads

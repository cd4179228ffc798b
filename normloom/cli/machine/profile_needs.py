"""What a profile's builds need from this machine, or from its Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from normloom.cli.machine.doctor import Finding
from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.models.installed import missing_engines
from normloom.models.media.senses import require_senses
from normloom.settings.config import load_profile, override, validated
from normloom.settings.systems import systems
from normloom.steps.graph import model_uses, stages_of
from normloom.workers.actors.node_engines import missing_on_nodes
from normloom.workers.resources import Resources


def examine_profile(profile: str, assignments: Sequence[str]) -> list[Finding]:
    """Check engines and resources for all systems that fit the profile; raises ConfigError if none does."""
    specs, resources, lacking = _needs(profile, assignments)
    if resources.address is None:
        return [*_engines(specs, missing_engines(specs)), *lacking, _processors(specs, resources)]
    return [*lacking, *_nodes(specs, resources)]


def too_many_processors(
    specs: Sequence[ModelSpec], resources: Resources, *, has: int = os.cpu_count() or 1
) -> str | None:
    """Return a message if a build needs more CPUs than this machine has, else None."""
    wanted = max(
        (resources.of(spec) for spec in specs), key=lambda one: one.actor["CPU"] * one.actors, default=resources
    )
    asked = wanted.actor["CPU"] * wanted.actors
    if resources.address or asked <= has:
        return None
    fitting = max(int(has // wanted.actor["CPU"]), 1)
    threads = f" --set resources.threads={has}" if wanted.actor["CPU"] > has else ""
    return (
        f"{wanted.actors} actors of {wanted.actor['CPU']:g} CPUs ask for {asked:g}, this machine has {has}: "
        f"they will share; --set resources.actors={fitting}{threads} fits"
    )


def _needs(profile: str, assignments: Sequence[str]) -> tuple[list[ModelSpec], Resources, list[Finding]]:
    """Return the distinct models of all systems that fit, the resources, and models that cannot see or hear."""
    found: dict[str, ModelSpec] = {}
    lacking: list[Finding] = []
    refused: list[ConfigError] = []
    resources: Resources | None = None
    for name, system in systems().items():
        try:
            config, resources = validated(system.config, override(load_profile(profile, name), assignments))
        except ConfigError as error:
            refused.append(error)
            continue
        stages = stages_of(*system.stages(config))
        found |= {spec.model_dump_json(): spec for spec in model_uses(stages)}
        try:
            require_senses(stages)
        except ConfigError as error:
            lacking.append(Finding(f"media of {name}", "broken", str(error)))
    if resources is None:
        raise refused[0]
    return list(found.values()), resources, lacking


def _engines(specs: Sequence[ModelSpec], missing: dict[str, str], *, where: str = "") -> Iterator[Finding]:
    for engine in dict.fromkeys(spec.engine for spec in specs):
        name = f"engine {engine}{where}"
        if engine in missing:
            detail, _, remedy = missing[engine].partition("; install it with: ")
            yield Finding(name, "broken", detail, remedy)
        else:
            yield Finding(name, "ok", "is installed")


def _processors(specs: Sequence[ModelSpec], resources: Resources) -> Finding:
    if problem := too_many_processors(specs, resources):
        detail, _, remedy = problem.partition("; ")
        return Finding("room", "missing", detail, remedy)
    return Finding("room", "ok", f"{resources.actors} actors of {resources.threads} threads fit")


def _nodes(specs: Sequence[ModelSpec], resources: Resources) -> Iterator[Finding]:
    import ray

    try:
        ray.init(address=resources.address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, TimeoutError) as error:  # pragma: no cover  # Ray takes 40 s to raise it
        yield Finding("Ray", "broken", f"{resources.address} is unreachable: {error}", "start it, or check the address")
        return
    try:
        missing = missing_on_nodes(specs, resources)
        nodes = [node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        yield Finding("Ray", "ok", f"{resources.address}, nodes {', '.join(nodes)}")
        for node in nodes:
            yield from _engines(specs, missing.get(node, {}), where=f" on {node}")
    finally:
        ray.shutdown()

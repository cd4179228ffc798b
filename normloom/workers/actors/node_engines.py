"""What the nodes of a Ray cluster say of the models that their actors may hold: whether they can, and which ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from normloom.core.errors import ConfigError, NormloomError
from normloom.core.models.protocol import ModelSpec
from normloom.models.identity import IdentifiedSpec, model_identity
from normloom.models.installed import missing_engines
from normloom.models.registry import engine_of
from normloom.workers.ray_start import start_ray
from normloom.workers.resources import Resources

Answer = TypeVar("Answer")

log = logging.getLogger("normloom.pool")


def missing_on_nodes(specs: Sequence[ModelSpec], resources: Resources) -> dict[str, dict[str, str]]:
    """Return what each node lacks of the engines whose actors it may hold: node -> engine -> sentence.

    Ray must be connected. Nodes that lack nothing are left out. Engines that need nothing are not asked about.
    """
    needing = [spec for spec in specs if engine_of(spec).imports]
    return {node: missing for node, missing in _asked(missing_engines, needing, resources) if missing}


def identified(specs: Sequence[ModelSpec], resources: Resources) -> list[ModelSpec]:
    """Return the models as the nodes of the cluster at `resources.address` know them.

    A key holds what the nodes have: this machine may lack the engine, have other versions, or not see the files.
    Models without libraries or files are the same everywhere and are not asked about. Raises ConfigError if no node
    has room for an actor, a node lacks what it needs, or two nodes would give different results; ModelError if the
    cluster cannot be reached.
    """
    local = [spec for spec in specs if not (engine_of(spec).libraries or engine_of(spec).files)]
    asked = [spec for spec in specs if spec not in local]
    if not asked:
        return list(specs)
    with _connected(resources):
        answers = _asked(_identities, asked, resources)
    return [spec if spec in local else _agreed(spec, answers, resources) for spec in specs]


def _agreed(spec: ModelSpec, answers: Sequence[tuple[str, Mapping[str, Any]]], resources: Resources) -> IdentifiedSpec:
    """Return a model as all nodes that may hold it know it; raises ConfigError if they do not agree."""
    name = spec.model_dump_json()
    found = [(node, known[name]) for node, known in answers if name in known]
    if not found:
        needed = " and ".join(f"{count:g} {kind}" for kind, count in resources.of(spec).actor.items() if count)
        raise ConfigError(
            f"no node of the Ray cluster at {resources.address} has room for an actor of model {spec.model!r} "
            f"({needed}): start its nodes, or ask for less with --set resources.threads=N"
        )
    first, identity = found[0]
    for node, other in found:
        if isinstance(other, str):
            raise ConfigError(f"Ray node {node}: {other}")
        if isinstance(identity, Mapping) and other != identity:
            field = next(field for field in identity if identity[field] != other[field])
            raise ConfigError(
                f"Ray nodes {first} and {node} would give different results with model {spec.model!r}: {field} is "
                f"{identity[field]!r} and {other[field]!r}; install the same on all nodes"
            )
    return IdentifiedSpec(**dict(spec), identity=identity)


def _identities(specs: Sequence[ModelSpec]) -> dict[str, dict[str, str] | str]:
    """Return the identity of each model on this machine, or why it cannot be held here."""
    return {spec.model_dump_json(): _identity(spec) for spec in specs}


def _identity(spec: ModelSpec) -> dict[str, str] | str:
    if missing := missing_engines([spec]):
        return missing[spec.engine]
    try:
        return model_identity(spec)
    except NormloomError as error:
        return str(error)


def _asked(
    question: Callable[[Sequence[ModelSpec]], Answer], specs: Sequence[ModelSpec], resources: Resources
) -> list[tuple[str, Answer]]:
    """Ask each node about the models whose actors it may hold; return the answers with the names of nodes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    lost = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError, ray.exceptions.WorkerCrashedError)
    look: Any = ray.remote(num_cpus=0, max_retries=0)(question)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # two may have one name
    asked = {
        identity: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False)).remote(held)
        for identity, node in nodes.items()
        if (held := [spec for spec in specs if _holds(node, resources.of(spec))])
    }
    answers: list[tuple[str, Answer]] = []
    for identity, reference in asked.items():
        try:
            answers.append((nodes[identity]["NodeManagerHostname"], ray.get(reference)))
        except lost:  # the node is gone meanwhile, and holds no actor either
            log.info("Ray node %s does not answer; it is left out", nodes[identity]["NodeManagerHostname"])
    return answers


def _holds(node: Mapping[str, Any], wanted: Resources) -> bool:
    return wanted.places(node["Resources"]) > 0


@contextmanager
def _connected(resources: Resources) -> Iterator[None]:
    """Be connected to the cluster, as before if this process is already."""
    import ray

    if ray.is_initialized():
        yield
        return
    connection = start_ray(address=resources.address, processors=0, require_open=lambda: None)
    try:
        yield
    finally:
        connection.end()

"""Whether the engines that models ask for are installed on the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normloom.core.protocol import ModelSpec
from normloom.models.installed import missing_engines
from normloom.workers.resources import Resources


def missing_on_nodes(specs: Sequence[ModelSpec], resources: Resources) -> dict[str, dict[str, str]]:
    """Return what each node lacks of the engines whose actors it may hold: node -> engine -> sentence.

    Ray must be connected. Nodes that lack nothing are left out.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(missing_engines)
    asked = {
        node["NodeName"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(held)
        for node in ray.nodes()
        if node["Alive"] and (held := [spec for spec in specs if _holds(node, resources.of(spec))])
    }
    found = zip(asked, ray.get(list(asked.values())), strict=True)
    return {node: missing for node, missing in found if missing}


def _holds(node: Mapping[str, Any], wanted: Resources) -> bool:
    return wanted.places(node["Resources"]) > 0

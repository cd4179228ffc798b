"""Patience with a busy machine: Ray gives its processes 30 s to come up and cannot be told to wait longer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from normloom.workers.ray_start import alone

TRIES = 5
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # as pools have it

log = logging.getLogger(__name__)


def start_ray(**settings: Any) -> None:
    """Start a Ray of the test's own."""
    import ray

    def start() -> None:
        ray.shutdown()  # of a try that failed
        with alone():
            ray.init(address="local", include_dashboard=False, log_to_driver=False, **settings)

    _tried(start)


def start_cluster(settings: Callable[[], dict[str, Any]] = dict) -> Any:
    """Start a cluster whose head has no place for an actor; each try asks for its further `settings`.

    An autoscaler is started only if there are some.
    """
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False}

    def start() -> Any:
        chosen = settings()
        with alone():
            return Cluster(initialize_head=True, head_node_args=head | {"no_monitor": not chosen} | chosen)

    return _tried(start)


def add_node(cluster: Any, **settings: Any) -> Any:
    """Add a node with stand-ins for Ray's agents to a cluster and return it."""
    with alone():
        return cluster.add_node(**settings)


def _tried(start: Callable[[], Any]) -> Any:
    for _ in range(TRIES - 1):
        try:
            return start()
        except Exception:  # Ray raises one or another; what the last try raises is the test's
            log.warning("Ray does not start; trying again", exc_info=True)
    return start()

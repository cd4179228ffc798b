"""Crews kept between the stages that use their model.

Before the pool loads a model it frees, if it must, the idle model whose next use in the flow is farthest away.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from normloom.crew import ActorCrew, Crew, InlineCrew
from normloom.errors import ClusterError, ModelError
from normloom.graph import farthest
from normloom.models.protocol import ModelSpec
from normloom.resources import Resources


@dataclass
class _Resident:
    crew: Crew
    leased: bool = False


@dataclass
class Pool:
    """Crews by model. `uses` is the model of each stage still to come, in the flow's order: what to free follows."""

    resources: Resources
    uses: Sequence[ModelSpec] = ()
    _residents: dict[str, _Resident] = field(default_factory=dict, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _started_ray: bool = field(default=False, init=False)
    loads: Counter[str] = field(default_factory=Counter, init=False)
    closed: threading.Event = field(default_factory=threading.Event, init=False)

    @contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[Crew]:
        """Hold the crew of a model, loading it where it is not resident; waits for its turn."""
        key = spec.model_dump_json()
        with self._changed:
            self._changed.wait_for(lambda: self._may_take(key))
            resident = self._residents.get(key) or self._load(key, spec)
            resident.leased = True
        try:
            yield resident.crew
        finally:
            with self._changed:
                resident.leased = False
                self.used(spec)
                self._changed.notify_all()

    def require_open(self) -> None:
        """Raise ModelError once the pool is closed."""
        if self.closed.is_set():
            raise ModelError("the build was stopped; finished parts are kept")

    def used(self, spec: ModelSpec) -> None:
        """Count one of the uses to come as past: a stage is done with the model, or needs it no more."""
        with self._changed:
            remaining = list(self.uses)
            if spec in remaining:
                remaining.remove(spec)
            self.uses = remaining

    def _may_take(self, key: str) -> bool:
        """Tell whether the model is free, or could be loaded beside those that are in use."""
        resident = self._residents.get(key)
        if resident:
            return not resident.leased
        in_use = sum(resident.leased for resident in self._residents.values())
        return in_use < self._rooms()

    def _rooms(self) -> int:
        """How many models fit at once."""
        if self.resources.actors == 0:
            return 1
        import ray

        self._start_ray()
        total = ray.cluster_resources()
        room = self.resources.places(total) // self.resources.actors
        if room < 1:
            raise ModelError(
                f"{self.resources.actors} actors with {self.resources.threads} threads and {self.resources.gpus:g} "
                f"GPUs each do not fit: Ray has {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs; "
                "ask for less with --set resources.actors=N or resources.threads=N"
            )
        return room

    def _load(self, key: str, spec: ModelSpec) -> _Resident:
        while len(self._residents) >= self._rooms():
            upcoming = [use.model_dump_json() for use in self.uses]
            idle = [name for name, resident in self._residents.items() if not resident.leased]
            self._residents.pop(farthest(idle, upcoming)).crew.close()
        inline = self.resources.actors == 0
        crew = InlineCrew(spec, threads=self.resources.threads) if inline else ActorCrew(spec, self.resources)
        self.loads[spec.model] += 1
        self._residents[key] = _Resident(crew)
        return self._residents[key]

    def _start_ray(self) -> None:
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy laptop takes longer than Ray's 30 s
        local = {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, self.resources.actors * self.resources.threads),
            "include_dashboard": False,
        }
        where = {"address": self.resources.address} if self.resources.address else local
        try:
            ray.init(**where, log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray raises one or another when a process of its own is late or dies
            raise ClusterError(f"Ray does not start at {where['address']!r}: {error}") from error
        self._started_ray = True

    def close(self) -> None:
        """End all actors, and Ray where the pool started it; stages at work end with an error, none is begun."""
        self.closed.set()
        while self._residents:
            self._residents.popitem()[1].crew.close()
        if self._started_ray:
            import ray

            ray.shutdown()
            self._started_ray = False

"""Crews kept between the stages that use their model.

Before the pool loads a model it frees, if it must, the idle model whose next use in the flow is farthest away: it
is put to sleep where its engine and the build's resources allow, and ended elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from normloom.core.errors import BuildCancelledError, ConfigError, ModelError
from normloom.core.models.needs import ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.models.adapters import loaded_for, shared_base
from normloom.steps.graph import farthest
from normloom.workers.actors.actor import other_holders
from normloom.workers.actors.actor_crew import ActorCrew
from normloom.workers.actors.node_engines import missing_on_nodes
from normloom.workers.actors.places import Places
from normloom.workers.crew import Crew, InlineCrew
from normloom.workers.ray_start import RunningRay, start_ray
from normloom.workers.resources import GB, Resources, fit

GIVE_WAY_SECONDS = 0.5
WAIT_SECONDS = 2.0  # between checks for room that became free unannounced
SHORT_WAIT_SECONDS = 2.0  # not worth a line
SAY_AGAIN_SECONDS = 60.0


class Waits:
    """Says what is waited for: when it changes, now and then while it lasts, and when it is over."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._said: str | None = None
        self._begun = self._when = 0.0  # by the clock that only goes forward

    def __call__(self, text: str) -> None:
        """Wait for what `text` says."""
        now = time.monotonic()
        self._begun = self._begun or now
        if now < self._begun + SHORT_WAIT_SECONDS:
            return
        if text != self._said or now > self._when + SAY_AGAIN_SECONDS:
            since = f" (for {now - self._begun:.0f} s)" if text == self._said else ""
            self._said, self._when = text, now
            self._note(text + since)

    def over(self) -> None:
        """Say that the wait is over, if there was one."""
        if self._said is not None:
            self._note(f"waited for {time.monotonic() - self._begun:.0f} s")
        self._said, self._begun = None, 0.0


@dataclass
class _Resident:
    crew: Crew
    resources: Resources
    leased: bool = False
    asleep: bool = False

    def occupies(self, *, shared: bool) -> tuple[Resources, int]:
        """Return what is taken from a model that may share the places of those asleep, or may not."""
        actors = self.crew.actors if isinstance(self.crew, ActorCrew) else 0
        return self.resources, 0 if self.asleep and shared else actors

    def sleep(self) -> bool:
        self.asleep = isinstance(self.crew, ActorCrew) and self.crew.sleep()
        return self.asleep

    def wake(self) -> None:
        if isinstance(self.crew, ActorCrew) and self.asleep:
            self.crew.wake()
        self.asleep = False


@dataclass
class Pool:
    """Crews by model. `uses` is the model of each stage still to come, in the flow's order: what to free follows.

    `holder` is who others on the same cluster read that they wait for.
    """

    resources: Resources
    uses: Sequence[ModelSpec] = ()
    holder: str = "a build"
    _residents: dict[str, _Resident] = field(default_factory=dict, init=False)
    _coming: dict[str, Resources] = field(default_factory=dict, init=False)  # models that wait for a place, or load
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _places: Places = field(default_factory=Places, init=False)
    _ray: RunningRay | None = field(default=None, init=False)
    loads: Counter[str] = field(default_factory=Counter, init=False)
    closed: threading.Event = field(default_factory=threading.Event, init=False)

    @contextmanager
    def lease(
        self, spec: ModelSpec, *, note: Callable[[str], None] = lambda _: None, found: ModelSpec | None = None
    ) -> Iterator[Crew]:
        """Hold the crew of a model, loading it if it is not resident; waits for its turn, and says so by `note`.

        `found` is what actors load, if more is known by now than `spec` says: where the files of a product are.
        """
        waits = Waits(note)
        with self._changed:
            loaded = self._loaded_for(spec)
            key = loaded.model_dump_json()
            while not self._may_take(key, loaded):
                waits(self._waits_for(key, spec))
                self._changed.wait(WAIT_SECONDS)
            resident = self._residents.get(key) or self._load(key, (found or spec) if loaded == spec else loaded, waits)
            waits.over()
            if resident.asleep:
                self._make_room(loaded)
                resident.wake()
            resident.leased = True
        try:
            yield resident.crew
        finally:
            with self._changed:
                resident.leased = False
                self.used(spec)
                if isinstance(spec, ProcessSpec):  # nothing is loaded that another stage could use
                    self._residents.pop(key).crew.close()
                self._changed.notify_all()

    def awaits(self, spec: ModelSpec) -> str:
        """Say what a stage that is about to lease the model waits for."""
        if isinstance(spec, ProcessSpec):
            return "starts a process of its own" if self.resources.actors else "begins"
        if resident := self._residents.get(self._loaded_for(spec).model_dump_json()):
            return f"waits for {spec.title}" if resident.leased else f"model {spec.title}"
        if self.resources.actors and not self._ray and not self.resources.address:
            return f"starts Ray, then loads {spec.title}"
        return f"loads {spec.title}"

    def require_open(self) -> None:
        """Raise BuildCancelledError once the pool is closed."""
        if self.closed.is_set():
            raise BuildCancelledError("the build was stopped; finished parts are kept")

    def used(self, spec: ModelSpec) -> None:
        """Count one of the uses to come as past: a stage is done with the model, or needs it no more."""
        with self._changed:
            remaining = list(self.uses)
            if spec in remaining:
                remaining.remove(spec)
            self.uses = remaining

    def _loaded_for(self, spec: ModelSpec) -> ModelSpec:
        """Return what is loaded for a model: what is resident serves its adapters to the end."""
        shared = shared_base(spec)
        if shared and shared.model_dump_json() in self._residents:
            return shared
        return loaded_for(spec, self.uses)

    def _may_take(self, key: str, spec: ModelSpec) -> bool:
        """Return whether the model is free, or could be loaded alongside those in use."""
        resident = self._residents.get(key)
        if key in self._coming:
            return False
        if resident and not resident.asleep:
            return not resident.leased
        return self._has_room(spec, [resident for resident in self._residents.values() if resident.leased])

    def _has_room(self, spec: ModelSpec, beside: Sequence[_Resident]) -> bool:
        """Return whether a model fits alongside others; raises ModelError if it does not fit at all."""
        if self.resources.actors == 0:
            return not beside
        wanted = self.resources.of(spec)
        total = self._total()
        if wanted.places(total) < wanted.actors:
            raise ModelError(
                f"{wanted.actors} actors for {spec.model!r} with {wanted.in_words} each do not fit: Ray has "
                f"{total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs and {total.get('memory', 0) / GB:.1f} GB; "
                f"{_advice(spec)}"
            )
        shared = wanted.sleepers > 0
        others = [resident.occupies(shared=shared) for resident in beside]
        return fit([(wanted, wanted.actors), *others, *self._awaited()], total)

    def _waits_for(self, key: str, spec: ModelSpec) -> str:
        """Say why a model may not be taken now."""
        taken = [name for name, one in self._residents.items() if one.leased] + list(self._coming)
        if key in taken:
            return f"waits for {spec.title}, which another stage uses"
        return f"waits for a place, held by {', '.join(json.loads(one)['model'] for one in taken)}"

    def _awaited(self) -> list[tuple[Resources, int]]:
        return [(resources, resources.actors) for resources in self._coming.values()]

    def _load(self, key: str, spec: ModelSpec, waits: Waits) -> _Resident:
        self._make_room(spec)
        wanted = self.resources.of(spec)
        crew: Crew
        if wanted.actors == 0:
            crew = InlineCrew(spec, threads=wanted.threads)
        else:
            places = self._places if wanted.sleepers else None
            self._coming[key] = wanted
            try:
                crew = ActorCrew(
                    spec,
                    wanted,
                    may_grow=self._may_grow,
                    places=places,
                    holder=self.holder,
                    waiting=partial(self._give_way, wanted, waits),
                )
            finally:
                del self._coming[key]
                self._changed.notify_all()
        if not isinstance(spec, ProcessSpec):
            self.loads[spec.model] += 1
        self._residents[key] = _Resident(crew, wanted)
        return self._residents[key]

    def _make_room(self, spec: ModelSpec) -> None:
        """Put idle models to sleep or end them until `spec` has room, the one that is needed last first."""
        wanted, allowed = spec.model_dump_json(), self.resources.of(spec).sleepers
        while not self._has_room(spec, list(self._residents.values())):
            idle = {name: one for name, one in self._residents.items() if not one.leased}
            spare = self._farthest([name for name, one in idle.items() if not (allowed and one.asleep)])
            if allowed and idle[spare].resources.sleepers and idle[spare].sleep():
                asleep = [name for name, one in idle.items() if one.asleep and name != wanted]
                if len(asleep) <= allowed:
                    continue
                spare = self._farthest(asleep)
            self._residents.pop(spare).crew.close()
            if not any(one.resources.sleepers for one in self._residents.values()):
                self._places.close()

    def _give_way(self, wanted: Resources, waits: Waits) -> None:
        """End an idle model if the cluster, which others use too, has no place for one that is wanted; say who has it.

        Two builds that each kept an idle model and waited for the other's place would wait for ever.
        """
        import ray

        self.require_open()
        if self.resources.address is None:
            return  # a Ray of our own: what it holds is known
        if wanted.places(ray.available_resources()) < 1:
            idle = [key for key, one in self._residents.items() if not one.leased]
            if idle:
                self._residents.pop(self._farthest(idle)).crew.close()
                return
            held = ", ".join(other_holders(self.holder)) or "other work"
            needed = " and ".join(f"{count:g} {name}" for name, count in wanted.actor.items() if count)
            waits(f"waits for {needed}, held by {held}")
        self._changed.wait(GIVE_WAY_SECONDS)  # stages at work may return what they hold

    def _farthest(self, names: Sequence[str]) -> str:
        return farthest(names, [self._loaded_for(use).model_dump_json() for use in self.uses])

    def _may_grow(self, resources: Resources, actors: int) -> bool:
        """Tell a crew of this size whether there is room for one more actor that no other model is about to take."""
        if actors >= (resources.max_actors or 0) or not self._changed.acquire(blocking=False):
            return False  # who holds it is loading a model
        try:
            others = [resident.occupies(shared=False) for resident in self._residents.values()]
            return fit([(resources, 1), *others, *self._awaited()], self._total())
        finally:
            self._changed.release()

    def _total(self) -> Mapping[str, float]:
        import ray

        self._start_ray()
        total: Mapping[str, float] = ray.cluster_resources()
        return total

    def _start_ray(self) -> None:
        import ray

        if ray.is_initialized():
            return
        self._ray = start_ray(
            address=self.resources.address,
            processors=self.resources.processors(self.uses),
            require_open=self.require_open,
        )
        if self.resources.address and (missing := missing_on_nodes(self.uses, self.resources)):
            node, engines = next(iter(missing.items()))
            others = f" and {len(missing) - 1} more nodes" if len(missing) > 1 else ""
            raise ConfigError(f"Ray node {node}{others}: {'; '.join(engines.values())}")

    def close(self) -> None:
        """End all actors, and Ray if the pool started it; stages at work end with an error, none is begun."""
        self.closed.set()
        while self._residents:
            self._residents.popitem()[1].crew.close()
        self._places.close()
        if self._ray:
            self._ray.end()
            self._ray = None


def _advice(spec: ModelSpec) -> str:
    """Return how to ask for less."""
    if isinstance(spec, ProcessSpec):
        return "ask for less in the stage's Needs, or have the build's process make its parts: --set resources.actors=0"
    return "ask for less with --set resources.actors=N or resources.threads=N"

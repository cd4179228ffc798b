"""Ray actors that hold the same model and make parts with it.

Actors are owned, never detached: detached ones outlive a cancelled build and keep their GPU.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from normloom.core.errors import BuildCancelledError, ClusterError, ModelError, NormloomError
from normloom.core.models.protocol import ModelSpec
from normloom.models.registry import MOST_PARTS, most_parts, parts_at_once
from normloom.workers.actors.actor import (
    LAST_WORDS_SECONDS,
    NAME_BREAK,
    PARTS,
    WANTS,
    Loaded,
    ModelActor,
    answers,
    how_died,
)
from normloom.workers.actors.dispatch import Dispatch
from normloom.workers.actors.growth import Growth
from normloom.workers.actors.places import Places
from normloom.workers.actors.run_log import DRAIN_SECONDS, current_run_log
from normloom.workers.crew import Halted, Loading, PartResult, never
from normloom.workers.memory import MemoryUse
from normloom.workers.parts.job import PartFailure, PartJob
from normloom.workers.resources import Resources

log = logging.getLogger("normloom.crew")

PLACE_CHECK_SECONDS = 2.0  # how often a crew looks at the cluster, at how far parts are, and for late ones
ARRIVAL_SECONDS = 8.0  # that a process may take to start where there is a place for it
NODE_LOSS_SECONDS = 20.0  # that Ray may take to see that a node is gone; until then deaths look like the model's
DEATHS_WHILE_LOADING = 2  # more than that, and the model is the cause


class ActorCrew:
    """Actors with the same model. Parts are made by those that are ready; one that dies is replaced.

    A replacement that finds no place, because its node is gone, keeps nobody waiting while others work. Where
    `may_grow` (asked with the number of actors) says that there is room for one more, it is started while parts wait;
    a cluster that the build did not start is asked for what is missing to `max_actors`.
    With `places` each actor has one of them, which it shares with those of models that sleep meanwhile. If none has
    arrived after a while, `waiting` is called every few seconds. Actors carry the name of their `holder`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        resources: Resources,
        *,
        may_grow: Callable[[Resources, int], bool] = lambda *_: False,
        places: Places | None = None,
        holder: str = "a build",
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._holder = holder
        self._waiting = waiting
        self._arriving: list[Any] = []  # references that come when an actor has its place
        self._started = time.monotonic()
        self._resources = resources
        self._may_grow = may_grow
        self._places = places
        self._place_of: dict[Any, int] = {}
        self._ready: list[Any] = []
        self._given: Counter[Any] = Counter()  # parts so far, by actor
        self._batching = False
        self._loading: dict[Any, Any] = {}  # reference that comes when an actor is ready -> actor
        self._outrun: dict[Any, Any] = {}  # reference of a copy that lost its race -> actor
        self._loads = Loading()
        self._deaths_loading = 0
        self._growth = Growth(resources.actor)
        self._closed = False
        self._at_work = False
        try:
            for place in range(resources.actors):
                self._start(place)
            while not self._ready:
                self._settle(self._wait([]))
        except BaseException:
            self.close()
            raise

    @property
    def actors(self) -> int:
        """How many actors there are, those that are loading included."""
        return len(self._ready) + len(self._loading)

    @property
    def _wanting(self) -> int:
        """How many more actors there might be if the cluster grew."""
        most = self._resources.max_actors or 0
        return max(most - self.actors, 0) if self._resources.address else 0

    def take_loading(self) -> Loading:
        """Return the loads since this was last asked, added up over the actors."""
        loads, self._loads = self._loads, Loading()
        return loads

    def memory(self) -> MemoryUse:
        """Return the most that one actor holds; one that does not answer at once is left out."""
        import ray

        asked = [actor.memory.remote() for actor in self._ready]
        told, _ = ray.wait(asked, num_returns=len(asked), timeout=LAST_WORDS_SECONDS) if asked else ([], [])
        return MemoryUse.most(answers(told))

    def run(
        self, jobs: Iterable[PartJob], *, probe: bool = False, alone: bool = False, halted: Halted = never
    ) -> Iterator[tuple[PartJob, PartResult]]:
        """Make parts on all actors that are ready."""
        self._at_work = True
        jobs = list(jobs)
        by_need = self._batching and self._spec.parts is None and not alone
        at_once = MOST_PARTS if by_need else parts_at_once(self._spec, max((job.makes for job in jobs), default=1))
        dispatch: Dispatch[Any] = Dispatch(jobs, at_once=at_once, actors=self.actors, alone=alone, halted=halted)
        try:
            yield from self._made(dispatch, probe=probe, by_need=by_need)
        finally:
            self._growth.ask(0)
        self._at_work = False

    def _made(self, dispatch: Dispatch[Any], *, probe: bool, by_need: bool) -> Iterator[tuple[PartJob, PartResult]]:
        """Make the parts; `by_need` those are given another that say that they want one."""
        import ray

        satisfied: dict[Any, Any] = {}  # reference that comes when an actor wants another part -> actor
        while dispatch:
            self._take_in()
            self._give(dispatch, satisfied, probe=probe, by_need=by_need)
            if dispatch.waiting and self._may_grow(self._resources, self.actors):
                self._start(self.actors)
            self._growth.ask(min(dispatch.waiting, self._wanting))
            done = self._wait([*dispatch.flying, *satisfied])
            if done is None:
                yield from self._progress(dispatch)
                continue
            if done in self._outrun:
                self._bury_if_dead(self._outrun.pop(done), done)
                continue
            if done in self._loading:
                continue
            wanting = satisfied.pop(done, None)
            actor = wanting or dispatch.actor_of(done)
            try:
                result: PartResult | NormloomError = ray.get(done)
            except ray.exceptions.RayActorError as error:
                died = dispatch.lost(actor)
                self._replace(actor, error, parts=[job.index for job in died])
                yield from ((job, PartFailure("the process that held the model died", died=True)) for job in died)
                continue
            if wanting:
                continue
            if isinstance(result, NormloomError):
                raise result
            seconds = getattr(result, "seconds", None)
            job, copies = dispatch.done(done, seconds, time.monotonic())
            self._outrun.update(copies)
            yield job, result

    def _give(self, dispatch: Dispatch[Any], satisfied: dict[Any, Any], *, probe: bool, by_need: bool) -> None:
        """Give out parts; `by_need` an actor that has got one is asked when it wants another."""
        run_log = current_run_log()
        while given := dispatch.next(
            [actor for actor in self._ready if actor not in satisfied.values()],
            Counter(self._outrun.values()),
            time.monotonic(),
        ):
            actor, job = given
            reference = actor.run.options(concurrency_group=PARTS).remote(job, probe=probe, run_log=run_log)
            dispatch.given(reference, actor, job, time.monotonic())
            self._given[actor] += 1
            if by_need:
                satisfied[actor.wants.options(concurrency_group=WANTS).remote(self._given[actor])] = actor

    def _progress(self, dispatch: Dispatch[Any]) -> Iterator[tuple[PartJob, PartResult]]:
        import ray

        asked = [actor.progress.remote() for actor in self._ready]
        told, _ = ray.wait(asked, num_returns=len(asked), timeout=LAST_WORDS_SECONDS) if asked else ([], [])
        known = ChainMap(*answers(told))
        yield from ((job, known[job.index]) for job in dispatch.at_work if job.index in known)

    def close(self) -> None:
        """End the actors' processes."""
        import ray

        self._closed = True
        if not ray.is_initialized():  # the build was stopped while this crew loaded
            return
        self._growth.ask(0)
        asked = [last for actor in self._ready for last in (actor.end.remote(), actor.tell.remote())]
        if asked:
            seconds = LAST_WORDS_SECONDS if self._at_work else LAST_WORDS_SECONDS + DRAIN_SECONDS
            ray.wait(asked, num_returns=len(asked), timeout=seconds)
        for actor in [*self._ready, *self._loading.values()]:
            ray.kill(actor)

    def sleep(self) -> bool:
        """Free the GPUs but keep the actors; False if one cannot, and then none does."""
        import ray

        try:
            while self._loading:
                done = self._wait([])
                if done in self._loading:
                    self._settle(done)
            asleep = ray.get([actor.sleep.remote() for actor in self._ready])
        except (ray.exceptions.RayError, NormloomError):
            log.debug("model %s cannot be put to sleep", self._spec.model, exc_info=True)
            return False
        if not all(asleep):
            self.wake()
        return all(asleep)

    def wake(self) -> None:
        """Have the actors ready again; one that died is replaced when its part shows it."""
        import ray

        ray.wait([actor.wake.remote() for actor in self._ready], num_returns=len(self._ready))

    def _start(self, place: int) -> None:
        import ray

        share = self._resources.actor
        asked: dict[str, Any] = {"num_cpus": share["CPU"], "num_gpus": share["GPU"], "memory": share.get("memory")}
        if self._places:
            asked = self._places.options(self._resources, place)
        worker = ray.remote(concurrency_groups={PARTS: most_parts(self._spec), WANTS: 1})(ModelActor)
        name = f"{self._holder}{NAME_BREAK}{self._spec.model} {secrets.token_hex(4)}"
        actor = worker.options(name=name, **asked).remote(self._spec, self._resources.threads, sys.path)
        self._arriving.append(actor.arrived.options(concurrency_group=PARTS).remote())
        self._place_of[actor] = place
        self._loading[actor.load.remote(current_run_log())] = actor

    def _replace(self, actor: Any, error: Exception, *, parts: Sequence[int] = ()) -> None:
        """Start another actor in the place of one that died or does not answer, once."""
        import ray

        self._require_open()
        if actor not in self._ready:  # something else that it was at has shown its death already
            return
        at_work = f" while it made part {', '.join(map(str, sorted(parts)))}" if parts else ""
        log.warning("a process with model %s died%s; starting another: %s", self._spec.model, at_work, how_died(error))
        self._ready.remove(actor)
        self._outrun = {reference: owner for reference, owner in self._outrun.items() if owner != actor}
        ray.kill(actor)  # one that is merely out of reach must not come back and work alongside its replacement
        self._start(self._place_of.pop(actor))

    def _bury_if_dead(self, actor: Any, reference: Any) -> None:
        """Replace an actor that died over a copy that nobody waits for any more."""
        import ray

        try:
            ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._replace(actor, error)

    def _wait(self, flying: Sequence[Any]) -> Any:
        """Return the next reference that is done: of a part, or of an actor that finished loading or failed to.

        None if nothing is for a while and some actor is ready, so that stragglers and growth can be seen to.
        """
        import ray

        while True:
            expected = [*flying, *self._loading, *self._outrun]
            done, _ = ray.wait(expected, num_returns=1, timeout=PLACE_CHECK_SECONDS)
            if done:
                return done[0]
            self._require_open()
            if self._ready:
                return None
            self._require_place()
            late = time.monotonic() > self._started + ARRIVAL_SECONDS
            if late and not ray.wait(self._arriving, num_returns=1, timeout=0)[0]:
                self._waiting()

    def _take_in(self) -> None:
        """Take in all actors that have loaded by now, so that parts are shared with them from the first one on."""
        import ray

        loading = list(self._loading)
        for reference in ray.wait(loading, num_returns=len(loading), timeout=0)[0] if loading else ():
            self._settle(reference)

    def _settle(self, reference: Any) -> None:
        """Take in an actor that finished loading; raises ModelError if it cannot load its model."""
        import ray

        actor = self._loading.pop(reference)
        try:
            loaded: Loaded | ModelError = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._require_open()
            self._deaths_loading += 1
            log.warning("a process died while it loaded model %s: %s", self._spec.model, how_died(error))
            if self._deaths_loading > DEATHS_WHILE_LOADING:
                deadline = time.monotonic() + NODE_LOSS_SECONDS
                while time.monotonic() < deadline:
                    self._require_place()
                    time.sleep(1)
                raise ModelError(
                    f"an actor could not load model {self._spec.model!r}: its process died each time, as it does when "
                    "memory runs out"
                ) from error
            self._start(self._place_of.pop(actor))
            return
        if isinstance(loaded, ModelError):
            raise loaded
        self._loads += Loading(1, loaded.seconds)
        self._batching = loaded.batching
        self._ready.append(actor)

    def _require_place(self) -> None:
        """Raise ClusterError if no node is left that could hold an actor."""
        import ray

        if not self._resources.places(ray.cluster_resources()):
            raise ClusterError(
                f"no actor for {self._spec.model!r} is left and Ray has no room for another: its nodes died; "
                "finished parts are kept, rerun the command to resume"
            )

    def _require_open(self) -> None:
        if self._closed:
            raise BuildCancelledError(f"the build was stopped while {self._spec.model!r} was at work")

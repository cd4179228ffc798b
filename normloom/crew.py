"""What holds a model and makes parts with it: the build's own process, or Ray actors.

Actors are owned, never detached: detached ones outlive a cancelled build and keep their GPU.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from normloom.errors import ClusterError, ModelError, NormloomError
from normloom.models import load_model
from normloom.models.protocol import ModelSpec
from normloom.part import PartJob, probe_part, run_part
from normloom.resources import Resources
from normloom.run_log import RunLog, current_run_log, drain, sending
from normloom.table import PartRecord

log = logging.getLogger("normloom.crew")

QUEUED_PARTS = 2  # an actor works at one part while the next waits beside it
PLACE_CHECK_SECONDS = 5.0  # how often a crew without actors asks whether the cluster still has a place for one
LAST_WORDS_SECONDS = 1.0  # for what an actor still has to log; one that is at work is not waited for
NODE_LOSS_SECONDS = 20.0  # that Ray may take to see that a node is gone; until then deaths look like the model's
DEATHS_WHILE_LOADING = 2  # more than that, and the model is the cause


@dataclass(frozen=True)
class PartFailure:
    """Why a part was not made: its function raised, or its process died."""

    error: str
    died: bool = False


PartResult = PartRecord | PartFailure | None


class Crew(Protocol):
    """What holds a model and makes parts with it."""

    def take_load_seconds(self) -> float:
        """Return the seconds spent loading since this was last asked, so that each stage is charged its own."""
        ...

    def run(self, jobs: Iterable[PartJob], *, probe: bool = False) -> Iterator[tuple[PartJob, PartResult]]:
        """Make parts (or only try them) and yield each as it is done."""
        ...

    def close(self) -> None:
        """Let go of the model and what holds it."""
        ...


class InlineCrew:
    """The build's own process as a crew of one; with a model, or without for stages that need none."""

    def __init__(self, spec: ModelSpec | None = None, *, threads: int = 1) -> None:
        started = time.monotonic()
        self._model = load_model(spec, threads=threads) if spec else None
        self._load_seconds = time.monotonic() - started if spec else 0.0

    def take_load_seconds(self) -> float:
        """Return the seconds that loading took, once."""
        seconds, self._load_seconds = self._load_seconds, 0.0
        return seconds

    def run(self, jobs: Iterable[PartJob], *, probe: bool = False) -> Iterator[tuple[PartJob, PartResult]]:
        """Make the parts one after another."""
        for job in jobs:
            yield job, _attempt(job, self._model, probe=probe)

    def close(self) -> None:
        """Let go of the model."""
        self._model = None


class _Worker:
    """The body of an actor."""

    def __init__(self, spec: ModelSpec, threads: int, paths: Sequence[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]  # where stage functions come from
        self._spec = spec
        self._threads = threads
        self._model: object | None = None

    def load(self, run_log: RunLog | None) -> float:
        """Load the model and return the seconds it took."""
        with sending(run_log):
            started = time.monotonic()
            self._model = load_model(self._spec, threads=self._threads)
            seconds = time.monotonic() - started
            log.info("process %d loaded model %s in %.1f s", os.getpid(), self._spec.model, seconds)
            return seconds

    def run(self, job: PartJob, *, probe: bool, run_log: RunLog | None) -> PartResult:
        """Make one part."""
        with sending(run_log):
            return _attempt(job, self._model, probe=probe)

    def tell(self) -> None:
        """Send what is still to be logged."""
        drain()


class ActorCrew:
    """Actors with the same model. Parts are made by those that are ready; one that dies is replaced.

    A replacement that finds no place, because its node is gone, keeps nobody waiting while others work.
    """

    def __init__(self, spec: ModelSpec, resources: Resources) -> None:
        self._spec = spec
        self._resources = resources
        self._ready: list[Any] = []
        self._loading: dict[Any, Any] = {}  # reference that comes when an actor is ready -> actor
        self._load_seconds = 0.0
        self._deaths_loading = 0
        self._closed = False
        self._at_work = False
        try:
            for _ in range(resources.actors):
                self._start()
            while not self._ready:
                self._settle(self._wait([]))
        except BaseException:
            self.close()
            raise

    def take_load_seconds(self) -> float:
        """Return the seconds spent loading since this was last asked, added up over the actors."""
        seconds, self._load_seconds = self._load_seconds, 0.0
        return seconds

    def run(self, jobs: Iterable[PartJob], *, probe: bool = False) -> Iterator[tuple[PartJob, PartResult]]:
        """Make parts on all actors that are ready, each with one part in work and one waiting."""
        self._at_work = True
        yield from self._made(deque(jobs), probe=probe)
        self._at_work = False

    def _made(self, waiting: deque[PartJob], *, probe: bool) -> Iterator[tuple[PartJob, PartResult]]:
        import ray

        run_log = current_run_log()
        flying: dict[Any, tuple[Any, PartJob]] = {}
        while waiting or flying:
            load = Counter(actor for actor, _ in flying.values())
            for actor in self._ready:
                while waiting and load[actor] < QUEUED_PARTS:
                    job = waiting.popleft()
                    flying[actor.run.remote(job, probe=probe, run_log=run_log)] = (actor, job)
                    load[actor] += 1
            done = self._wait(list(flying))
            if done not in flying:
                self._settle(done)
                continue
            actor, job = flying.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayActorError:
                for reference in [reference for reference, (owner, _) in flying.items() if owner == actor]:
                    waiting.appendleft(flying.pop(reference)[1])  # it only waited behind the part that failed
                self._replace(actor)
                result = PartFailure("the process that held the model died", died=True)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, NormloomError) else error from None
            yield job, result

    def close(self) -> None:
        """End the actors' processes."""
        import ray

        self._closed = True
        told = [] if self._at_work else [actor.tell.remote() for actor in self._ready]
        if told:
            ray.wait(told, num_returns=len(told), timeout=LAST_WORDS_SECONDS)
        for actor in [*self._ready, *self._loading.values()]:
            ray.kill(actor)

    def _start(self) -> None:
        import ray

        worker = ray.remote(_Worker).options(num_cpus=self._resources.threads, num_gpus=self._resources.gpus)
        actor = worker.remote(self._spec, self._resources.threads, sys.path)
        self._loading[actor.load.remote(current_run_log())] = actor

    def _replace(self, actor: Any) -> None:
        """Start another actor in the place of one that died or does not answer."""
        import ray

        self._require_open()
        self._ready.remove(actor)
        ray.kill(actor)  # one that is merely out of reach must not come back and work beside its replacement
        self._start()

    def _wait(self, flying: Sequence[Any]) -> Any:
        """Return the next reference that is done: of a part, or of an actor that finished loading or failed to."""
        import ray

        while True:
            done, _ = ray.wait([*flying, *self._loading], num_returns=1, timeout=PLACE_CHECK_SECONDS)
            if done:
                return done[0]
            self._require_open()
            if not self._ready:
                self._require_place()

    def _settle(self, reference: Any) -> None:
        """Take in an actor that finished loading; raises ModelError where it cannot load its model."""
        import ray

        actor = self._loading.pop(reference)
        try:
            self._load_seconds += float(ray.get(reference))
        except ray.exceptions.RayTaskError as error:
            raise self._cannot_load(str(error.cause)) from error
        except ray.exceptions.RayActorError as error:
            self._require_open()
            self._deaths_loading += 1
            if self._deaths_loading > DEATHS_WHILE_LOADING:
                deadline = time.monotonic() + NODE_LOSS_SECONDS
                while time.monotonic() < deadline:
                    self._require_place()
                    time.sleep(1)
                raise self._cannot_load("its process died each time, as it does when memory runs out") from error
            self._start()
        else:
            self._ready.append(actor)

    def _require_place(self) -> None:
        """Raise ClusterError where no node is left that could hold an actor."""
        import ray

        if not self._resources.places(ray.cluster_resources()):
            raise ClusterError(
                f"no actor for {self._spec.model!r} is left and Ray has no place for another: its nodes died; "
                "finished parts are kept, the same command goes on from here"
            )

    def _cannot_load(self, why: str) -> ModelError:
        return ModelError(f"an actor could not load model {self._spec.model!r}: {why}")

    def _require_open(self) -> None:
        if self._closed:
            raise ModelError(f"the build was stopped while {self._spec.model!r} was at work")


def _attempt(job: PartJob, model: object | None, *, probe: bool) -> PartResult:
    """Make a part; an error that is not about the stage as a whole is the part's, to be traced to its row."""
    try:
        if probe:
            probe_part(job, model)
            return None
        return run_part(job, model)
    except NormloomError:
        raise
    except Exception as error:  # kept with its row: whatever a row makes a function raise
        log.warning("part %d of %s failed", job.index, job.stage, exc_info=True)
        return PartFailure(f"{type(error).__name__}: {error}")

"""The body of an actor: it holds a model and makes parts with it."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from normloom.core.errors import EngineDiedError, ModelError, NormloomError, cause
from normloom.core.machine.collector import loading
from normloom.core.models.protocol import Batching, Closing, ModelSpec, Sleeping
from normloom.models import load_model
from normloom.models.requests.progress import listening
from normloom.workers.actors.run_log import RunLog, drain, sending
from normloom.workers.crew import PartProgress, PartResult, attempt
from normloom.workers.memory import MemoryUse, memory_use
from normloom.workers.parts.job import PartJob
from normloom.workers.stage_run import noting

log = logging.getLogger("normloom.crew")

NAME_BREAK = ", model "
PARTS = "parts"  # the actor's threads that make parts; it answers to the rest meanwhile
LAST_WORDS_SECONDS = 1.0  # for an actor to answer, and to end what its model started
REASON_CHARS = 500
WANTS = "wants"  # the thread in which an actor waits until it wants another part
BATCHES_AT_HAND = 2  # of rows: one that is written, and one that takes its place


@dataclass(frozen=True)
class Loaded:
    """How long an actor's model took to load, and whether it says how many requests it works at (`Batching`)."""

    seconds: float
    batching: bool


class ModelActor:
    """The body of an actor."""

    def __init__(self, spec: ModelSpec, threads: int, paths: Sequence[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]  # where stage functions come from
        self._spec = spec
        self._threads = threads
        self._model: object | None = None
        self._shares: dict[int, float] = {}
        self._makes: dict[int, int] = {}  # by part, how many rows it is to make
        self._begun = 0
        self._moved = threading.Condition()  # when a part begins, moves on or ends
        self._notes: dict[int, str] = {}

    # Errors are returned and not raised: what nobody waits for any more (the copy of a part that lost its race, a
    # second actor that cannot load either) Ray would print on the user's terminal as unhandled.

    def load(self, run_log: RunLog | None) -> Loaded | ModelError:
        """Load the model, and return how that went or why it cannot be loaded."""
        with sending(run_log):
            started = time.monotonic()
            try:
                with loading():
                    self._model = load_model(self._spec, threads=self._threads)
            except Exception as error:  # kept with its cause, whatever an engine raises
                log.warning("process %d cannot load model %s", os.getpid(), self._spec.model, exc_info=True)
                return ModelError(f"an actor could not load model {self._spec.model!r}: {cause(error)}")
            seconds = time.monotonic() - started
            log.info("process %d loaded model %s in %.1f s", os.getpid(), self._spec.model, seconds)
            return Loaded(seconds, isinstance(self._model, Batching))

    def run(self, job: PartJob, *, probe: bool, run_log: RunLog | None) -> PartResult | NormloomError:
        """Make one part; an error that concerns the stage as a whole is returned."""
        with sending(run_log):
            with self._moved:
                self._begun += 1
                self._makes[job.index] = job.makes
                self._moved.notify_all()
            try:
                with (
                    listening(partial(self._tell, job.index)),
                    noting(partial(self._notes.__setitem__, job.index)),
                ):
                    return attempt(job, self._model, probe=probe)
            except EngineDiedError:
                log.exception("process %d ends, its engine is gone", os.getpid())
                drain()
                os._exit(1)  # a process that dies is replaced, with the model loaded again
            except NormloomError as error:
                return error
            finally:
                with self._moved:
                    for kept in (self._makes, self._shares, self._notes):
                        kept.pop(job.index, None)
                    self._moved.notify_all()

    def wants(self, given: int) -> None:
        """Return when all `given` parts have begun and few of their rows are still to be written.

        By then the model, which is `Batching`, has one batch in work and less than another that waits.
        """
        assert isinstance(self._model, Batching)
        few = BATCHES_AT_HAND * self._model.requests_at_once
        with self._moved:
            self._moved.wait_for(lambda: self._begun >= given and self._unwritten() < few)

    def arrived(self) -> None:
        """Answer as soon as the process is there, also while the model loads."""

    def progress(self) -> dict[int, PartProgress]:
        """Return how far each part in work is."""
        return {index: PartProgress(share, self._notes.get(index, "")) for index, share in self._shares.copy().items()}

    def _tell(self, index: int, share: float) -> None:
        with self._moved:
            self._shares[index] = share
            self._moved.notify_all()

    def _unwritten(self) -> float:
        return sum(makes * (1 - self._shares.get(index, 0.0)) for index, makes in self._makes.items())

    def memory(self) -> MemoryUse:
        """Return what the process and those it started hold."""
        return memory_use()

    def sleep(self) -> bool:
        """Free the GPU if the model can."""
        try:
            return isinstance(self._model, Sleeping) and self._model.sleep()
        except Exception:
            log.exception("model %s cannot be put to sleep", self._spec.model)
            return False

    def wake(self) -> None:
        """Come back to the GPU; a process whose model does not ends, and is replaced when that shows."""
        try:
            if isinstance(self._model, Sleeping):
                self._model.wake()
        except Exception:
            log.exception("process %d ends, its model does not wake up", os.getpid())
            drain()
            os._exit(1)

    def tell(self) -> None:
        """Send what is still to be logged."""
        drain()

    def end(self) -> None:
        """Let the model end what it started."""
        try:
            if isinstance(self._model, Closing):
                self._model.close()
        except Exception:
            log.exception("model %s did not close", self._spec.model)


def how_died(error: Exception) -> str:
    """Return what Ray knows of the death of an actor, in one line: process and node, then the reason."""
    told = " ".join(str(error).split())
    facts = [f"{name} {found[1]}" for name in ("pid", "ip") if (found := re.search(rf"\b{name}: (\S+)", told))]
    reason = told.partition("because ")[2].partition(" There are some potential root causes")[0] or told
    return f"{', '.join(facts)}: {reason}"[:REASON_CHARS] if facts else reason[:REASON_CHARS]


def other_holders(holder: str) -> list[str]:
    """Return who else holds actors in the cluster that Ray is connected to."""
    from ray.util import list_named_actors

    names = [str(actor["name"]) for actor in list_named_actors(all_namespaces=True)]
    holders = {name.partition(NAME_BREAK)[0] for name in names if NAME_BREAK in name}
    return sorted(holders - {holder})


def answers(references: Sequence[Any]) -> Iterator[Any]:
    """Yield what actors answered, without those that died."""
    import ray

    for reference in references:
        try:
            yield ray.get(reference)
        except ray.exceptions.RayError:  # it died since: its replacement will be asked next time
            continue

"""What holds a model and makes parts with it: the build's own process here, Ray actors in `actors`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from normloom.core.errors import NormloomError, WaitingError, cause
from normloom.core.models.protocol import Closing, ModelSpec
from normloom.core.table import PartRecord
from normloom.models import load_model
from normloom.models.adapters import served_by
from normloom.workers.memory import MemoryUse, memory_use
from normloom.workers.parts.job import PartFailure, PartJob
from normloom.workers.parts.part import probe_part, run_part

log = logging.getLogger("normloom.crew")


@dataclass(frozen=True)
class PartProgress:
    """How much of a part is done so far: a share from 0 to 1, and what its step says of it."""

    share: float
    note: str = ""


@dataclass(frozen=True)
class PartWaiting:
    """A part whose work was sent elsewhere and is not back yet; the reason may end with a command about the store."""

    reason: str
    in_store: bool = False


PartResult = PartRecord | PartFailure | PartProgress | PartWaiting | None


@dataclass(frozen=True)
class Loading:
    """How often a model was loaded and the seconds that took, added up over actors."""

    count: int = 0
    seconds: float = 0.0

    def __add__(self, other: Loading) -> Loading:
        return Loading(self.count + other.count, self.seconds + other.seconds)


Halted = Callable[[], bool]


def never() -> bool:
    """Say that work continues."""
    return False


class Crew(Protocol):
    """What holds a model and makes parts with it."""

    def take_loading(self) -> Loading:
        """Return the loads since this was last asked, so that each stage is charged its own."""
        ...

    def memory(self) -> MemoryUse:
        """Return the most memory that one process of the crew holds."""
        ...

    def run(
        self, jobs: Iterable[PartJob], *, probe: bool = False, alone: bool = False, halted: Halted = never
    ) -> Iterator[tuple[PartJob, PartResult]]:
        """Make parts (or only try them) and yield each as it is done; meanwhile, if known, how far parts are.

        With `alone` a process has one part at a time, so that its death is the fault of that part. Once it is
        `halted` no further part is begun.
        """
        ...

    def close(self) -> None:
        """Let go of the model and what holds it."""
        ...


class InlineCrew:
    """The build's own process as a crew of one; with a model, or without for stages that need none."""

    def __init__(self, spec: ModelSpec | None = None, *, threads: int = 1) -> None:
        started = time.monotonic()
        self._model = load_model(spec, threads=threads) if spec else None
        self._loading = Loading(1, time.monotonic() - started) if spec else Loading()

    def take_loading(self) -> Loading:
        """Return the load, once."""
        loading, self._loading = self._loading, Loading()
        return loading

    def memory(self) -> MemoryUse:
        """Return what this process holds; nothing if it holds no model."""
        return memory_use() if self._model else MemoryUse()

    def run(
        self,
        jobs: Iterable[PartJob],
        *,
        probe: bool = False,
        alone: bool = False,  # noqa: ARG002  # one after another they always are
        halted: Halted = never,
    ) -> Iterator[tuple[PartJob, PartResult]]:
        """Make the parts one after another."""
        for job in jobs:
            if halted():
                return
            yield job, attempt(job, self._model, probe=probe)

    def close(self) -> None:
        """Let go of the model."""
        if isinstance(self._model, Closing):
            self._model.close()
        self._model = None


def attempt(job: PartJob, model: object | None, *, probe: bool) -> PartResult:
    """Make a part; an error that is not about the stage as a whole is the part's, to be traced to its row."""
    try:
        if job.served:
            model = served_by(model, job.served)
        if probe:
            probe_part(job, model)
            return None
        return run_part(job, model)
    except WaitingError as error:
        return PartWaiting(str(error), in_store=bool(error.command))
    except NormloomError:
        raise
    except Exception as error:  # kept with its row: whatever a row makes a function raise
        log.warning("part %d of %s failed", job.index, job.stage, exc_info=True)
        return PartFailure(cause(error), machine=_of_the_machine(error))


def _of_the_machine(error: Exception) -> bool:
    """Return whether an error is about memory, disk or connections: another time the same rows may do."""
    torch = sys.modules.get("torch")
    kinds = (OSError, MemoryError, *([torch.OutOfMemoryError] if torch else []))
    return isinstance(error, kinds)

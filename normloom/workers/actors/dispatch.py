"""Which actor gets which part next. Knows no cluster: the caller says what runs and what came back.

Parts go to the actor with the least to do. Near the end of a stage, when an actor has nothing left, it gets a
copy of a part that waits behind another or that takes far longer than the rest; the first to come back counts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median
from typing import Generic, TypeVar

from normloom.workers.parts.job import PartJob

QUEUED_PARTS = 1  # besides those in progress: an actor has the next one at hand when it finishes
STRAGGLER_FACTOR = 2.0  # times the median time of a part
STRAGGLER_SECONDS = 5.0  # at least
STRAGGLER_BASIS = 3  # parts that must be done before any can be said to be late

Actor = TypeVar("Actor", bound=Hashable)


@dataclass
class _Flight(Generic[Actor]):
    actor: Actor
    job: PartJob
    started: float | None  # None while it waits in the actor's queue


@dataclass
class Dispatch(Generic[Actor]):
    """The parts of one run over a crew.

    An actor works at `at_once` parts side by side, and at no more than its share if there will be as many as `actors`:
    those that still load their model find parts left. With `alone` it is given one at a time and no copies are made,
    so that a death is the fault of one part. Once it is `halted` no further part is given.
    """

    jobs: Iterable[PartJob]
    at_once: int = 1
    actors: int = 1
    alone: bool = False
    halted: Callable[[], bool] = field(default=lambda: False)
    _waiting: deque[PartJob] = field(init=False)
    _flying: dict[Hashable, _Flight[Actor]] = field(default_factory=dict, init=False)
    _seconds: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._waiting = deque(self.jobs)
        self.at_once = max(min(self.at_once, ceil(len(self._waiting) / self.actors)), 1)

    @property
    def waiting(self) -> int:
        """How many parts no actor has been given yet."""
        return 0 if self.halted() else len(self._waiting)

    @property
    def flying(self) -> list[Hashable]:
        """The tickets of all parts that actors have."""
        return list(self._flying)

    @property
    def at_work(self) -> list[PartJob]:
        """The parts that actors have, each once."""
        return list({flight.job.index: flight.job for flight in self._flying.values()}.values())

    def __bool__(self) -> bool:
        return bool(self.waiting or self._flying)

    def next(self, actors: Sequence[Actor], occupied: Counter[Actor], now: float) -> tuple[Actor, PartJob] | None:
        """Return a part and the actor to give it to, None if all have enough or nothing is left to give.

        `occupied` counts what keeps an actor busy besides: copies that have lost their race.
        """
        load = Counter({actor: occupied[actor] for actor in actors})
        load.update(flight.actor for flight in self._flying.values())
        least = min(actors, key=lambda actor: load[actor], default=None)
        if least is None:
            return None
        room = 1 if self.alone else self.at_once + QUEUED_PARTS
        if self.halted():
            return None
        if self._waiting:
            return (least, self._waiting.popleft()) if load[least] < room else None
        if self.alone or load[least]:
            return None
        late = self._late(now)
        return (least, replace(late, copy=late.copy + 1)) if late else None

    def given(self, ticket: Hashable, actor: Actor, job: PartJob, now: float) -> None:
        """Note that an actor was given a part; `ticket` is what its result will come under."""
        running = sum(flight.actor == actor and flight.started is not None for flight in self._flying.values())
        self._flying[ticket] = _Flight(actor, job, now if running < self.at_once else None)

    def actor_of(self, ticket: Hashable) -> Actor:
        """Return who has the part that was given under `ticket`."""
        return self._flying[ticket].actor

    def done(self, ticket: Hashable, seconds: float | None, now: float) -> tuple[PartJob, dict[Hashable, Actor]]:
        """Take a part off; return it and the tickets of its copies, which need not be waited for.

        `seconds` is what it took, if it was made.
        """
        flight = self._flying.pop(ticket)
        if seconds is not None:
            self._seconds.append(seconds)
        copies = {other: found.actor for other, found in self._flying.items() if found.job.index == flight.job.index}
        copies = {} if self.alone else copies  # probes cut parts into halves of the same index
        for other in copies:
            del self._flying[other]
        for actor in {flight.actor, *copies.values()}:
            self._promote(actor, now)
        return flight.job, copies

    def lost(self, actor: Actor) -> list[PartJob]:
        """Take off all that an actor had that died; return the parts it was at, those it queued wait again.

        A part that another actor has a copy of is neither: the copy continues.
        """
        mine = {ticket: flight for ticket, flight in self._flying.items() if flight.actor == actor}
        for ticket in mine:
            del self._flying[ticket]
        elsewhere = set() if self.alone else {flight.job.index for flight in self._flying.values()}
        orphans = [flight for flight in mine.values() if flight.job.index not in elsewhere]
        self._waiting.extendleft(flight.job for flight in reversed(orphans) if flight.started is None)
        return [flight.job for flight in orphans if flight.started is not None]

    def _promote(self, actor: Actor, now: float) -> None:
        """Let what an actor had queued count as started if it has a hand free."""
        mine = [flight for flight in self._flying.values() if flight.actor == actor]
        free = self.at_once - sum(flight.started is not None for flight in mine)
        for flight in [flight for flight in mine if flight.started is None][: max(free, 0)]:
            flight.started = now

    def _late(self, now: float) -> PartJob | None:
        """Return the part to make a copy of: one that waits in a queue, or the one that has run longest if too long."""
        made = Counter(flight.job.index for flight in self._flying.values())
        single = [flight for flight in self._flying.values() if made[flight.job.index] == 1]
        queued = [flight for flight in single if flight.started is None]
        if queued:
            return queued[-1].job
        if len(self._seconds) < STRAGGLER_BASIS:
            return None
        limit = max(STRAGGLER_FACTOR * median(self._seconds), STRAGGLER_SECONDS)
        late = [(flight.started, flight.job) for flight in single if flight.started is not None]
        started, job = min(late, key=lambda pair: pair[0], default=(now, None))
        return job if now - started > limit else None

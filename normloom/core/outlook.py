"""Progress and remaining time of a build."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that only tells durations has no need of them
    from normloom.core.table import Manifest, PartRecord
    from normloom.planning.plan import Plan

MINUTE, HOUR = 60, 3600


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Progress of a build: finished tables, share of the work done, seconds left.

    `seconds` covers work that earlier tables or finished parts can predict; `untimed` says that there is more.
    """

    tables: int
    of: int
    share: float
    seconds: float
    untimed: bool

    @property
    def left(self) -> str:
        """The time left, rounded to what is known; empty if nothing is left or known."""
        if self.tables == self.of or (self.untimed and self.seconds < 1):
            return ""
        bound = "at least " if self.untimed else "about " if self.seconds >= 1 else ""
        return f"{bound}{about(self.seconds)} left"

    def __str__(self) -> str:
        left = f", {self.left}" if self.left else ""
        return f"{self.tables} of {self.of} tables, {self.share:.0%} of the work{left}"


def about(seconds: float) -> str:
    """Return a duration rounded to what is known."""
    if seconds < 1:
        return "under 1 s"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE)} min"


@dataclass
class RowsDone:
    """Rows of a stage that are done: those of parts that are committed and, by part, those of parts in work."""

    done: int = 0
    within: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All of them."""
        return self.done + sum(self.within.values())

    def add(self, part: PartRecord) -> None:
        """Count a part that is committed."""
        self.done += part.stop - part.start
        self.within.pop(part.index, None)


@dataclass
class _Stage:
    expected: float | None  # seconds, by earlier tables
    rows: RowsDone = field(default_factory=RowsDone)
    total: int = 0
    before: int = 0  # rows that an earlier build has done
    begun: float | None = None
    ended: bool = False

    @property
    def share(self) -> float:
        """The part of this build's work that is done."""
        if self.ended:
            return 1.0
        work = self.total - self.before
        return (self.rows.rows - self.before) / work if work else 0.0

    def seconds(self, now: float) -> float | None:
        """Return the seconds left: at first what earlier tables tell, towards the end what the rows so far do."""
        share = self.share
        if share == 1 or self.begun is None or not share:
            return 0.0 if share == 1 else self.expected
        by_rows = (now - self.begun) / share
        whole = by_rows if self.expected is None else (1 - share) * self.expected + share * by_rows
        return (1 - share) * whole


class Forecast:
    """Follows the stages of a build; safe to use from several threads.

    `expected` has the seconds that each stage will take, 0 for one that is reused, None if nothing tells.
    """

    def __init__(
        self, system: str, expected: Mapping[str, float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._system = system
        self._stages = {name: _Stage(seconds) for name, seconds in expected.items()}
        known = [seconds for seconds in expected.values() if seconds]
        usual = sum(known) / len(known) if known else 1.0
        self._weights = {name: usual if seconds is None else seconds for name, seconds in expected.items()}
        self._clock = clock
        self._lock = threading.Lock()

    @classmethod
    def of(cls, plan: Plan) -> Forecast:
        """Return the forecast by a plan; the time that a model takes to load is its first stage's."""
        loads = dict(plan.load_seconds)
        expected: dict[str, float | None] = {}
        for planned in plan.stages:
            model = planned.stage.model
            load = loads.pop(model.model, 0.0) if model and planned.to_do and planned.rows_left != 0 else 0.0
            expected[planned.stage.name] = None if planned.seconds is None else planned.seconds + load
        return cls(plan.system, expected)

    def begin(self, stage: str, *, total: int, done: int) -> None:
        """Note that a stage begins, with its number of rows and how many are done already."""
        with self._lock:
            one = self._stages[stage]
            one.rows, one.total, one.before, one.begun = RowsDone(done), total, done, self._clock()

    def advance(self, stage: str, part: PartRecord) -> None:
        """Note that a part is committed."""
        with self._lock:
            self._stages[stage].rows.add(part)

    def within(self, stage: str, part: int, rows: int) -> None:
        """Note how many rows of a part in work are done."""
        with self._lock:
            self._stages[stage].rows.within[part] = rows

    def end(self, manifest: Manifest) -> None:
        """Note that a stage has its table."""
        with self._lock:
            self._stages[manifest.ref.known_to(self._system)].ended = True

    def outlook(self) -> Outlook:
        """Return how things stand now."""
        with self._lock:
            now = self._clock()
            stages, weights = self._stages, self._weights
            ended = sum(one.ended for one in stages.values())
            whole = sum(weights.values())
            done = sum(weights[name] * one.share for name, one in stages.items())
            left = [one.seconds(now) for one in stages.values()]
        return Outlook(
            tables=ended,
            of=len(stages),
            share=done / whole if whole else ended / len(stages),
            seconds=sum(seconds or 0.0 for seconds in left),
            untimed=None in left,
        )

    def at_work(self) -> list[tuple[str, int, int]]:
        """Return the stages at work: name, rows done, rows in all."""
        with self._lock:
            return [
                (name, one.rows.rows, one.total)
                for name, one in self._stages.items()
                if one.begun is not None and not one.ended
            ]

"""Queues of rows that wait for answers: found in a store, answered row by row. The base of all front ends."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
from pydantic import ValidationError

from normloom.core.errors import UsageError
from normloom.core.table import Manifest
from normloom.labelling.answers import Answer, Standing, now, standing, this_tool
from normloom.labelling.asking import STAGE, Asking
from normloom.labelling.book import LabelBook
from normloom.labelling.questions import LabelSchema
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class QueueRow:
    """A row to answer: `shown` has the visible values by column, `answers` one person's answers so far."""

    row: str
    place: int
    chosen_by: str
    shown: Mapping[str, Any]
    digest: str
    answers: Mapping[str, Answer]


@dataclass(frozen=True, kw_only=True)
class LabelProgress:
    """How many rows a queue has, how many are answered by enough people, and how many are not.

    `by_person` counts the rows that each person has answered.
    """

    rows: int
    answered: int
    waiting: int
    by_person: Mapping[str, int]


class LabelQueue:
    """A queue with the answers so far: `next`, `record`, `undo`, `progress`. Every answer is stored at once.

    Each call sees answers that others have given meanwhile.
    """

    def __init__(self, store: Store, table: Manifest) -> None:
        self.store, self.table = store, table
        self.asking = _asking(table)
        self.book = LabelBook(store, self.asking.name)

    def __repr__(self) -> str:
        return f"LabelQueue({self.name!r}, {self.system!r})"

    @property
    def name(self) -> str:
        """The name of the labels."""
        return self.asking.name

    @property
    def system(self) -> str:
        """The system that asks."""
        return self.table.system

    @property
    def asks(self) -> LabelSchema:
        """Questions and guidelines."""
        return self.asking.asks

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The queue as it was published, in order."""
        return self.store.scan(self.table.ref).collect()

    def next(self, who: str, count: int = 1, *, skipping: Sequence[str] = ()) -> list[QueueRow]:
        """Return the next rows that still need this person's answer, in order, without those to skip."""
        given = self._given()
        found: list[QueueRow] = []
        for line in self.rows.iter_rows(named=True):
            people = given.get(line["asked"], {})
            done = self._done(people)
            if len(found) == count:
                break
            if who not in done and len(done) < self.asking.people and line["asked"] not in skipping:
                found.append(self._row(line, people.get(who, {})))
        return found

    def listed(self, who: str = "") -> list[QueueRow]:
        """Return all rows in order, with the answers of a person."""
        given = self._given()
        return [self._row(line, given.get(line["asked"], {}).get(who, {})) for line in self.rows.iter_rows(named=True)]

    def row(self, row: str, who: str) -> QueueRow:
        """Return a row of the queue by its id, or the first digits of it; raises UsageError."""
        ids = self.rows["asked"]
        hits = self.rows.filter(ids.str.starts_with(row)) if row else self.rows.clear()
        if hits.height != 1:
            several = "more than one row" if hits.height else "no row"
            raise UsageError(
                f"{row!r} names {several} of the queue {self.name!r}; `normloom label {self.name} list` shows them"
            )
        line = hits.row(0, named=True)
        return self._row(line, self._given().get(line["asked"], {}).get(who, {}))

    def record(self, row: QueueRow, values: Mapping[str, Any], who: str, *, tool: str | None = None) -> list[Answer]:
        """Store the answers to a row, by question; they correct this person's earlier ones.

        Raises UsageError, and stores nothing, for an unknown question or an invalid value.
        """
        if not values:
            raise UsageError(f"no answer given; questions: {', '.join(self.asks.questions)}")
        when = now()
        answers = [
            Answer(
                row=row.row,
                question=name,
                value=self.asks.question(name).fitting(value, name=name),
                who=person(who),
                when=when,
                tool=tool or this_tool(),
                shown=row.digest,
            )
            for name, value in values.items()
        ]
        self.book.add(answers)
        return answers

    def undo(self, who: str) -> list[Answer]:
        """Undo this person's last answers in this queue, those of one row, and return them.

        Their earlier answers count again. Returns nothing if there is nothing to undo.
        """
        asked = set(self.rows["asked"])
        state = self._standing()
        corrected = set(state.corrected)
        every = [one for one in self.book.answers() if one.who == who and one.row in asked and one.undoes is None]
        mine = [one for one in every if one.id not in state.undone]
        if not mine:
            return []
        last = max(one.when for one in mine)
        taken = [one for one in mine if one.when == last and one.id not in corrected]
        when = max(now(), last)
        undone = [
            one.model_copy(update={"value": None, "undoes": one.id, "when": when, "tool": this_tool()}) for one in taken
        ]
        self.book.add([Answer(**one.model_dump()) for one in undone])
        return taken

    def progress(self) -> LabelProgress:
        """Return the queue's progress."""
        given = self._given()
        done = [self._done(given.get(row, {})) for row in self.rows["asked"]]
        answered = sum(len(people) >= self.asking.people for people in done)
        enough = min(self.asking.need or len(done), len(done))
        people = sorted({who for one in done for who in one})
        return LabelProgress(
            rows=len(done),
            answered=answered,
            waiting=max(enough - answered, 0),
            by_person={who: sum(who in one for one in done) for who in people},
        )

    def counted(self) -> list[Answer]:
        """Return the answers that count for the rows as shown now."""
        return [
            answer for people in self._given().values() for answers in people.values() for answer in answers.values()
        ]

    def _row(self, line: Mapping[str, Any], answers: Mapping[str, Answer]) -> QueueRow:
        return QueueRow(
            row=line["asked"],
            place=line["place"],
            chosen_by=line["chosen_by"],
            shown={name: line[name] for name in self.asking.show},
            digest=line["shown"],
            answers=answers,
        )

    def _standing(self) -> Standing:
        return standing(self.book.answers())

    def _given(self) -> dict[str, dict[str, dict[str, Answer]]]:
        """Return the answers that count for what is shown now: row -> person -> question -> answer."""
        shown = dict(self.rows.select("asked", "shown").iter_rows())
        given: dict[str, dict[str, dict[str, Answer]]] = {}
        for answer in self._standing().current:
            if answer.row in shown and answer.is_about(shown[answer.row]):
                given.setdefault(answer.row, {}).setdefault(answer.who, {})[answer.question] = answer
        return given

    def _done(self, people: Mapping[str, Mapping[str, Answer]]) -> list[str]:
        """Return who has answered every question of a row that must be answered."""
        return [who for who, answers in people.items() if all(name in answers for name in self.asks.required)]


def queues(store: Store) -> list[LabelQueue]:
    """Return the newest queue of each name and system, in this order."""
    found = [
        LabelQueue(store, table)
        for system in store.systems()
        for path in (store.root / system).glob(f"{STAGE}*")
        if (table := store.current(system, path.name)) and _is_queue(table)
    ]
    return sorted(found, key=lambda queue: (queue.name, queue.system))


def open_queue(store: Store, name: str, *, system: str | None = None) -> LabelQueue:
    """Return a queue by the name of its labels; raises UsageError if no system, or several, ask under this name."""
    systems = [system] if system else store.systems()
    tables = [table for one in systems if (table := store.current(one, f"{STAGE}{name}")) and _is_queue(table)]
    if len(tables) > 1:
        asking = ", ".join(table.system for table in tables)
        raise UsageError(f"several systems ask for labels {name!r}: name one of {asking} with --system")
    if not tables:
        known = ", ".join(dict.fromkeys(queue.name for queue in queues(store))) or "none; normloom build publishes them"
        raise UsageError(f"no queue for labels {name!r} in {store.root}; available: {known}")
    return LabelQueue(store, tables[0])


class OpenQueues:
    """The queues of a store for a front end that runs on: what was read of rows and answers is not read again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: dict[tuple[str, str], LabelQueue] = {}

    def one(self, name: str, system: str) -> LabelQueue:
        """Return the newest queue of a name and a system; raises UsageError if there is none."""
        self.store.require(system)
        return self._kept(open_queue(self.store, name, system=system))

    def every(self) -> list[LabelQueue]:
        """Return the newest queue of each name and system."""
        return [self._kept(queue) for queue in queues(self.store)]

    def _kept(self, found: LabelQueue) -> LabelQueue:
        """Return the queue that is open already, unless another table has been published since."""
        place = (found.name, found.system)
        known = self._open.get(place)
        if known is None or known.table != found.table:
            known = self._open[place] = found
        return known


def person(who: str | None = None) -> str:
    """Return the name under which answers are given: the one given, NORMLOOM_WHO, or the user's on this machine."""
    found = (who or os.environ.get("NORMLOOM_WHO") or "").strip()
    if found:
        return found
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise UsageError("no name to answer under: give --who NAME, or set NORMLOOM_WHO") from None


def _asking(table: Manifest) -> Asking:
    given = table.key_fields.get("arguments") or {}
    return Asking.model_validate(given)


def _is_queue(table: Manifest) -> bool:
    try:
        _asking(table)
    except ValidationError:
        return False
    return True

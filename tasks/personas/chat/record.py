"""The record of a chat: answers like all labels, those of people apart from those of models, added and never changed.

| row | person | model |
|---|---|---|
| a turn | `said`, `task`, `key` | `read` (how many facts were found in it) |
| a fact | `fact`: a correction | `fact`, `of` (its turn), `span`, `confidence` |
| a reply | | `reply` (null if it failed), `failure`, `of`, `drew_on` |

A fact is (relation, object, task, topic); a correction without values says that it is no fact. Rows of turns have the
ids that the stage `turns` gives them, so that everything derived from one is found in the tables too.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from normloom.core.rows.ids import row_id
from normloom.labelling.answers import Answer, Origin, now, standing, this_tool
from normloom.labelling.book import LabelBook
from normloom.labelling.questions import LabelSchema, Question, Value
from normloom.labelling.seen import Labels
from normloom.store.store import Store

TURNS = "turns"  # the stage whose rows are the turns
FACT = ("relation", "object", "task", "topic")
_ASKS = {
    "person": ("said", "task", "key", "fact"),
    "model": ("read", "fact", "of", "span", "confidence", "reply", "failure", "drew_on"),
}
_LEARNED = {"fact", "of", "span", "confidence"}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a user said; `read` tells whether it has been looked through for facts."""

    id: str
    username: str
    task: str
    text: str
    when: datetime
    read: bool = False


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A fact that a model read in characters `start` to `stop` of a turn; a row id of its own."""

    id: str
    turn: str
    fact: tuple[str, ...]  # as FACT
    start: int
    stop: int
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model answered to a turn; without `text` it failed, for the reason `failure`.

    `drew_on` names the turns, replies and facts that it was shown.
    """

    id: str
    turn: str
    text: str | None
    failure: str
    model: str
    drew_on: tuple[str, ...]
    when: datetime


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a person says a fact is; `fact` is empty if it is none."""

    of: str
    fact: tuple[str, ...]
    who: str
    when: datetime


def chat_name(system: str) -> str:
    """Return the name under which a store has what was said to a system."""
    return f"chat_{re.sub(r'[^a-z0-9_]', '_', system.lower())}"


def chat_labels(system: str, origin: Origin) -> Labels:
    """Return what people said to a system, or what models made of it, as a stage sees it."""
    asks = LabelSchema.of({name: Question(optional=True) for name in _ASKS[origin]})
    return Labels(name=chat_name(system), asks=asks, origin=origin)


class ChatRecord:
    """The record of all chats with a system. Everything is stored as it is added; what others add is seen."""

    def __init__(self, store: Store, system: str) -> None:
        self.store, self.system = store, system
        self.people = LabelBook(store, chat_name(system), "person")
        self.models = LabelBook(store, chat_name(system), "model")

    def turn_id(self, key: str) -> str:
        """Return the id of the turn with this key: that of its row in the table of turns."""
        return row_id(self.system, TURNS, [key], 0)

    def say(self, username: str, text: str, task: str, key: str) -> str:
        """Store what a user said and return the turn's id; a text already stored under the key is kept."""
        turn = self.turn_id(key)
        if all(answer.row != turn for answer in self.people.answers(forgotten=True)):
            self._add(self.people, turn, username, said=text, task=task, key=key)
        return turn

    def learn(self, turn: str, found: Sequence[Learned], model: str) -> None:
        """Store what a model read in a turn, in one piece, with how much it is."""
        answers = self._answers(self.models, turn, model, read=str(len(found)))
        for one in found:
            answers += self._answers(
                self.models,
                one.id,
                model,
                fact=one.fact,
                of=turn,
                span=(str(one.start), str(one.stop)),
                confidence=one.confidence,
            )
        self.models.add(answers)

    def reply(self, turn: str, text: str | None, model: str, *, drew_on: Sequence[str], failure: str = "") -> None:
        """Store a reply, or that there is none and why."""
        mine = row_id(self.system, "replies", [turn, secrets.token_hex(8)], 0)
        self._add(self.models, mine, model, reply=text, failure=failure, of=turn, drew_on=tuple(drew_on))

    def correct(self, fact: str, values: Sequence[str], who: str) -> None:
        """Store what a fact is instead; without values that it is none."""
        self._add(self.people, fact, who, fact=tuple(values))

    def fact_id(self, turn: str, number: int) -> str:
        """Return the id of one of the facts of a turn."""
        return row_id(self.system, "learned", [turn], number)

    def _add(self, book: LabelBook, row: str, who: str, **values: Value | None) -> None:
        book.add(self._answers(book, row, who, **values))

    def _answers(self, book: LabelBook, row: str, who: str, **values: Value | None) -> list[Answer]:
        when, tool, origin = now(), this_tool(), book.origin
        return [
            Answer(row=row, question=question, value=value, who=who, when=when, origin=origin, tool=tool)
            for question, value in values.items()
        ]


def turns_of(people: Iterable[Answer], models: Iterable[Answer] = ()) -> list[Turn]:
    """Return the turns in the order in which they were said."""
    read = {answer.row for answer in models if answer.question == "read"}
    turns = [
        Turn(
            id=row,
            username=given["said"].who,
            task=_text(given.get("task")),
            text=_text(given["said"]),
            when=given["said"].when,
            read=row in read,
        )
        for row, given in _by_row(people)
        if "said" in given
    ]
    return sorted(turns, key=lambda turn: (turn.when, turn.id))


def keys_of(people: Iterable[Answer]) -> dict[str, str]:
    """Return the key of each turn."""
    return {row: _text(given["key"]) for row, given in _by_row(people) if "key" in given}


def learned_of(models: Iterable[Answer]) -> list[Learned]:
    """Return the facts that models read, in the order in which they were said."""
    found = [(given["fact"].when, row, given) for row, given in _by_row(models) if given.keys() >= _LEARNED]
    return [
        Learned(
            id=row,
            turn=_text(given["of"]),
            fact=_texts(given["fact"]),
            start=int(_texts(given["span"])[0]),
            stop=int(_texts(given["span"])[1]),
            confidence=float(_text(given["confidence"])),
        )
        for _, row, given in sorted(found, key=lambda one: one[:2])
    ]


def replies_of(models: Iterable[Answer]) -> list[Reply]:
    """Return the replies, oldest first."""
    replies = [
        Reply(
            id=row,
            turn=_text(given["of"]),
            text=None if given["reply"].value is None else _text(given["reply"]),
            failure=_text(given.get("failure")),
            model=given["reply"].who,
            drew_on=_texts(given["drew_on"]),
            when=given["reply"].when,
        )
        for row, given in _by_row(models)
        if {"reply", "of", "drew_on"} <= given.keys()
    ]
    return sorted(replies, key=lambda reply: (reply.when, reply.id))


def corrections_of(people: Iterable[Answer]) -> dict[str, Correction]:
    """Return the newest correction of each fact."""
    found = sorted(
        (answer for answer in standing(people).current if answer.question == "fact"), key=lambda one: one.when
    )
    return {one.row: Correction(of=one.row, fact=_texts(one), who=one.who, when=one.when) for one in found}


def _by_row(answers: Iterable[Answer]) -> Iterable[tuple[str, dict[str, Answer]]]:
    current = sorted(standing(answers).current, key=lambda answer: (answer.row, answer.when))
    for row, given in groupby(current, key=lambda answer: answer.row):
        yield row, {answer.question: answer for answer in given}


def _text(answer: Answer | None) -> str:
    return answer.text if answer else ""


def _texts(answer: Answer) -> tuple[str, ...]:
    return answer.value if isinstance(answer.value, tuple) else ()

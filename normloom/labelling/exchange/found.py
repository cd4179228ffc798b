"""What a file of another tool says, before it becomes answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer, Origin, now
from normloom.labelling.book import LabelBook
from normloom.labelling.questions import LabelSchema
from normloom.store.store import Store

_Entry = TypeVar("_Entry", bound=BaseModel)
ROW, SHOWN = "normloom_row", "normloom_shown"  # fields by which a task or record is known again


@dataclass(frozen=True, kw_only=True)
class Found:
    """One answer in a file; `where` says which entry has it. `who` and `when` are None if the file does not say."""

    where: str
    row: str
    question: str
    value: Any
    who: str | None
    when: datetime | None = None
    origin: Origin = "person"
    shown: str | None = None


def add(store: Store, name: str, found: Iterable[Found], asks: LabelSchema, *, who: str | None, tool: str) -> int:
    """Store what was found as answers and return how many are new; those that are there already are left out.

    `who` answered what the file names nobody for. Raises UsageError, naming the entry, for what does not fit the
    questions: nothing is stored then.
    """
    added, when = 0, now()
    answers = [_answer(one, asks, who=who, when=when, tool=tool) for one in found]
    for origin in dict.fromkeys(answer.origin for answer in answers):
        book = LabelBook(store, name, origin)
        known = {_said(answer) for answer in book.answers(forgotten=True) if answer.undoes is None}
        new = [answer for answer in answers if answer.origin == origin and _said(answer) not in known]
        if new:
            book.add(new)
        added += len(new)
    return added


def entry_of(kind: type[_Entry], content: Any, where: str) -> _Entry:
    """Return an entry of a file with what is read of it. Raises UsageError, with the place, for another shape."""
    if not isinstance(content, Mapping):
        raise UsageError(f"{where}: expected an object")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        why = re.sub(" or instance of .*", "", first["msg"]).replace("dictionary", "object")
        raise UsageError(f"{where}: {place}: {why[0].lower()}{why[1:]}") from error


def moment(text: Any, where: str) -> datetime | None:
    """Return a time in ISO 8601, in UTC if it names no zone; None for an empty one."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} is not an ISO 8601 time") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def by_person(answers: Iterable[Answer]) -> dict[tuple[Origin, str], list[Answer]]:
    """Return answers by origin and who gave them."""
    given: dict[tuple[Origin, str], list[Answer]] = {}
    for answer in answers:
        given.setdefault((answer.origin, answer.who), []).append(answer)
    return given


def row_of(fields: Sequence[Any], where: str) -> str:
    """Return the first id of a row that is given."""
    row = next((str(one) for one in fields if one), None)
    if row is None:
        raise UsageError(f"{where}: no row id; expected a field {ROW!r}, which normloom label NAME export writes")
    return row


def _answer(found: Found, asks: LabelSchema, *, who: str | None, when: datetime, tool: str) -> Answer:
    try:
        value = asks.question(found.question).fitting(found.value, name=found.question)
    except UsageError as error:
        raise UsageError(f"{found.where}: {error}") from error
    by = found.who or who
    if not by:
        raise UsageError(f"{found.where}: the file does not say who answered: give --who NAME")
    return Answer(
        row=found.row,
        question=found.question,
        value=value,
        who=by,
        when=found.when or when,
        origin=found.origin,
        tool=tool,
        shown=found.shown,
    )


def _said(answer: Answer) -> tuple[Any, ...]:
    return (*answer.slot, answer.value, answer.shown)

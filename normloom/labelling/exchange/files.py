"""Import and export of a queue's answers as files of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from normloom.core.errors import UsageError
from normloom.core.formats.text_file import text_of
from normloom.labelling.answers import Answer, standing
from normloom.labelling.book import ORIGINS, LabelBook
from normloom.labelling.exchange import argilla, label_studio, table
from normloom.labelling.exchange.found import add
from normloom.labelling.queue import LabelQueue

Form = Literal["label-studio", "argilla", "csv"]


class Imported(NamedTuple):
    """How many answers of a file are new, and the ids in it of rows that the queue does not ask about."""

    new: int
    unasked: list[str]


def import_answers(queue: LabelQueue, path: Path, form: Form | None = None, *, who: str | None = None) -> Imported:
    """Add the answers in a file to the labels of a queue. An answer counts once the queue asks about its row.

    Without `form` the file tells: by its suffix, and by what its first entry has. Raises UsageError for a file that
    cannot be used as a whole: nothing is stored then.
    """
    text = text_of(path)
    try:
        if path.suffix == ".csv" or form == "csv":
            form, found = "csv", table.read(text, queue.asks)
        else:
            content = _json(text)
            form = form or _form(content)
            found = (label_studio if form == "label-studio" else argilla).read(content, queue.asks)
        answers = list(found)
        asked = {row.row for row in queue.listed()}
        unasked = list(dict.fromkeys(answer.row for answer in answers if answer.row not in asked))
        return Imported(add(queue.store, queue.name, answers, queue.asks, who=who, tool=form), unasked)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def export_answers(queue: LabelQueue, path: Path, form: Form) -> int:
    """Write the rows of a queue with the answers that count, those of models too, and return how many rows.

    Raises UsageError if there is such a file, or it cannot be written.
    """
    answers: list[Answer] = []
    for origin in ORIGINS:
        answers += standing(LabelBook(queue.store, queue.name, origin).answers()).current
    rows: list[dict[str, Any]] = [
        {"row": row.row, "digest": row.digest, "shown": dict(row.shown)} for row in queue.listed()
    ]
    digests: dict[str, str] = {row["row"]: row["digest"] for row in rows}
    by_row: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.row in digests and answer.is_about(digests[answer.row]):
            by_row.setdefault(answer.row, []).append(answer)
    if form == "csv":
        text = table.write(rows, by_row, queue.asks)
    else:
        made = (label_studio if form == "label-studio" else argilla).write(rows, by_row, queue.asks)
        text = json.dumps(made, ensure_ascii=False, indent=1, default=str)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already: give another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file that can be written") from error
    return len(rows)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"is not JSON: {error}") from error


def _form(content: Any) -> Form:
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, dict) and "data" in first:
        return "label-studio"
    if isinstance(first, dict) and "fields" in first:
        return "argilla"
    raise UsageError("is neither a list of Label Studio tasks nor of Argilla records")

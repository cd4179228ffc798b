"""Queues of rows that wait for answers, as the page asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import UsageError
from normloom.labelling.queue import LabelQueue, OpenQueues, QueueRow
from normloom.view.rows import cell


class QueueNamed(BaseModel):
    """A queue, by the name of its labels and the system that asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(max_length=200)
    system: str = Field(max_length=200)


class Skipping(QueueNamed):
    """Rows to leave for later."""

    skipping: tuple[str, ...] = Field(default=(), max_length=100_000)


class Answered(QueueNamed):
    """The answers to one row, by question; `digest` is that of what was shown."""

    row: str = Field(max_length=200)
    digest: str = Field(max_length=200)
    values: Mapping[str, Any]


def add_queues(app: FastAPI, queues: OpenQueues, who: str | None) -> None:
    """Let the page list queues and, if somebody answers, record answers under their name."""

    @app.get("/api/queues")
    def listed() -> dict[str, Any]:
        return {"who": who, "queues": [_described(queue) for queue in queues.every()]}

    @app.post("/api/queue/next")
    def upcoming(asked: Skipping) -> dict[str, Any]:
        queue = queues.one(asked.name, asked.system)
        rows = queue.next(who or "", skipping=asked.skipping)
        return {**_described(queue), "row": _row(rows[0]) if rows else None}

    @app.post("/api/queue/answer")
    def answer(given: Answered) -> dict[str, Any]:
        queue, by = queues.one(given.name, given.system), _answering(who)
        row = queue.row(given.row, by)
        if row.digest != given.digest:
            raise UsageError(f"row {given.row} has changed since it was shown: look at it again")
        queue.record(row, given.values, by)
        return _described(queue)

    @app.post("/api/queue/undo")
    def undo(asked: QueueNamed) -> dict[str, Any]:
        queue, by = queues.one(asked.name, asked.system), _answering(who)
        taken = queue.undo(by)
        return {**_described(queue), "row": _row(queue.row(taken[0].row, by)) if taken else None}


def _answering(who: str | None) -> str:
    if who is None:
        raise UsageError("this page only reads: start it with normloom view --label to answer")
    return who


def _described(queue: LabelQueue) -> dict[str, Any]:
    return {
        "name": queue.name,
        "system": queue.system,
        "guidelines": queue.asks.guidelines,
        "questions": {
            name: {**question.model_dump(mode="json"), "kind": question.kind}
            for name, question in queue.asks.questions.items()
        },
        "progress": asdict(queue.progress()),
    }


def _row(row: QueueRow) -> dict[str, Any]:
    return {
        "row": row.row,
        "place": row.place,
        "chosen_by": row.chosen_by,
        "digest": row.digest,
        "shown": {name: cell(value, longest=None) for name, value in row.shown.items()},
        "answers": {name: answer.value for name, answer in row.answers.items()},
    }

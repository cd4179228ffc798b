"""The analyst's face of PersoPilot: tasks, candidates, how the classifier learns, offers. Answers go to its queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.errors import UsageError
from normloom.labelling.queue import LabelQueue, OpenQueues, QueueRow
from normloom.schemas.people.analyst_tables import ACCEPT, DECISIONS, REPLIES, REPLY, SIDE
from normloom.schemas.people.persona_tables import STRATEGIES
from normloom.store.store import Store
from normloom.view.rows import cell

PEOPLE = "answers"  # the curve of what people answered since
_RIGHT = pl.col("predicted") == pl.col("accepted")
_TASK = "classification_task"


class CandidateWanted(BaseModel):
    """The next candidate of a task, without those to skip; or one `row`, as after it was taken back."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str = Field(max_length=200)
    task: str = Field(max_length=1000)
    skipping: tuple[str, ...] = Field(default=(), max_length=100_000)
    row: str | None = Field(default=None, max_length=200)


def add_analyst(app: FastAPI, store: Store, queues: OpenQueues, who: str | None) -> None:
    """Let the page show the loop of a system; answers are recorded as those of any queue."""

    @app.get("/api/analyst")
    def overview(system: str) -> dict[str, Any]:
        deciding, replies = queues.one(DECISIONS, system), queues.one(REPLIES, system)
        tables = {name: _table(store, system, name) for name in ("members", "learned", "rounds", "taught", "offers")}
        return {
            "who": who,
            "decisions": DECISIONS,
            "replies": REPLIES,
            "guidelines": deciding.asks.guidelines,
            "tasks": _tasks(tables, deciding),
            "curves": _curves(tables),
            "offers": _offers(tables["offers"], replies),
        }

    @app.post("/api/analyst/next")
    def upcoming(wanted: CandidateWanted) -> dict[str, Any]:
        queue = queues.one(DECISIONS, wanted.system)
        if wanted.row is not None:
            return {"row": _candidate(queue.row(wanted.row, who or ""))}
        open_ = queue.next(who or "", queue.rows.height, skipping=wanted.skipping)
        found = next((row for row in open_ if row.shown[_TASK] == wanted.task), None)
        return {"row": _candidate(found) if found else None}


def _table(store: Store, system: str, stage: str) -> pl.DataFrame:
    found = store.current(system, stage)
    if found is None:
        raise UsageError(f"{system} has no table {stage!r}: run normloom build {system}")
    return store.scan(found.ref).collect()


def _tasks(tables: Mapping[str, pl.DataFrame], queue: LabelQueue) -> list[dict[str, Any]]:
    """Return each task with its sides, who is known to be on which, and how the answers since the build fit."""
    answers = {one.row: one.value for one in queue.counted() if one.question == SIDE}
    asked = queue.rows.with_columns(
        answer=pl.col("asked").replace_strict(answers, default=None, return_dtype=pl.String)
    ).with_columns(agreed=pl.col("predicted") == (pl.col("answer") == ACCEPT))
    made = []
    for (task,), users in tables["members"].group_by(_TASK, maintain_order=True):
        known = tables["learned"].filter(pl.col(_TASK) == task)
        own = asked.filter(pl.col(_TASK) == task)
        given = own.drop_nulls("answer")
        made.append(
            {
                "task": task,
                "accept": users["accept"][0],
                "decline": users["decline"][0],
                "users": users.height,
                "known": known.height,
                "accepted": int(known["accepted"].sum()),
                "asked": own.height,
                "answered": given.height,
                "agreed": int(given["agreed"].sum()),
            }
        )
    return made


def _curves(tables: Mapping[str, pl.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each task's learning curves: labels known, accuracy, coverage, and users predicted."""
    replayed = (
        tables["rounds"]
        .group_by(_TASK, "strategy", "round", maintain_order=True)
        .agg(
            labelled=pl.col("labelled").first(), accuracy=_RIGHT.mean(), coverage=pl.col("covered").mean(), of=pl.len()
        )
    )
    so_far = pl.int_range(1, pl.len() + 1)
    people = (
        tables["taught"]
        .sort("place")
        .select(
            _TASK,
            "labelled",
            strategy=pl.lit(PEOPLE),
            accuracy=_RIGHT.cum_sum().over(_TASK) / so_far.over(_TASK),
            coverage=pl.col("covered").cum_sum().over(_TASK) / so_far.over(_TASK),
            of=so_far.over(_TASK),
        )
    )
    columns = (_TASK, "strategy", "labelled", "accuracy", "coverage", "of")
    types = {"labelled": pl.Int64, "of": pl.Int64}
    every = pl.concat([part.select(columns).cast(types) for part in (replayed, people)])  # type: ignore[arg-type]  # names
    return {
        str(task): [
            {"strategy": name, "points": list(_points(points.filter(strategy=name)))}
            for name in (*STRATEGIES, PEOPLE)
            if not points.filter(strategy=name).is_empty()
        ]
        for (task,), points in every.group_by(_TASK, maintain_order=True)
    }


def _points(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return rows.select("labelled", "accuracy", "coverage", "of").iter_rows(named=True)


def _offers(rows: pl.DataFrame, queue: LabelQueue) -> list[dict[str, Any]]:
    """Return the offers, those that wait first; `given` is a reply that the next build will read."""
    given = {one.row: one.value for one in queue.counted() if one.question == REPLY}
    digests = dict(queue.rows.select("asked", "shown").iter_rows())
    ordered = rows.sort(pl.col("status") != "waiting", _TASK, "username", maintain_order=True)
    return [
        {
            **_plain(row, leaving_out=("parents",)),
            "digest": digests.get(row["member"]),
            "given": given.get(row["member"]),
        }
        for row in ordered.iter_rows(named=True)
    ]


def _candidate(row: QueueRow) -> dict[str, Any]:
    answer = row.answers.get(SIDE)
    return {
        "row": row.row,
        "digest": row.digest,
        "answer": answer.value if answer else None,
        **_plain(row.shown),
    }


def _plain(row: Mapping[str, Any], leaving_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row as JSON has it; lists of texts stay lists."""
    return {
        name: value if isinstance(value, list) else cell(value, longest=None)
        for name, value in row.items()
        if name not in leaving_out
    }

"""A queue of few rows about which tests ask, and answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import polars as pl

import normloom as nl
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.labelling.queue import LabelQueue, open_queue
from normloom.store.store import Store
from normloom.testing import made

TEXTS = ("Pass the salt, please.", "Give me that!", "Would you mind waiting?", "Get out.")
SCORES = (0.9, 0.45, 0.55, 0.05)
QUESTIONS: dict[str, nl.Question | Sequence[str]] = {
    "polite": ["yes", "no"],
    "strength": nl.Question(low=0, high=10, optional=True),
}


def source(texts: Sequence[str] = TEXTS, scores: Sequence[float] = SCORES) -> Stage:
    return nl.table(pl.DataFrame({"text": texts, "score": scores}), name="texts")


def tone(**options: Any) -> Stage:
    return nl.labels("tone", QUESTIONS, **options)


def flow(rows: Stage | None = None, **asking: Any) -> Stage:
    return nl.ask(rows or source(), tone(), show=["text"], **asking)


def published(store: Store, rows: Stage | None = None, **asking: Any) -> LabelQueue:
    """Publish the queue of the flow, as a build does before it waits, and open it."""
    with suppress(nl.WaitingError):
        made("toy", [flow(rows, **asking)], store)
    return open_queue(store, "tone")


def answer_all(queue: LabelQueue, value: str = "yes", who: str = "ada") -> int:
    count = 0
    while found := queue.next(who):
        queue.record(found[0], {"polite": value}, who)
        count += 1
    return count


def rows_of(store: Store, table: Manifest) -> pl.DataFrame:
    return store.scan(table.ref).collect()

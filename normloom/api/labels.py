"""Queues of rows that wait for people's answers, from Python."""

from __future__ import annotations

import os
from pathlib import Path

from normloom.labelling import queue
from normloom.labelling.queue import LabelQueue
from normloom.store.store import Store


def open_queue(name: str, *, store: str | os.PathLike[str] = "store", system: str | None = None) -> LabelQueue:
    """Return the queue of this name, whose rows wait for answers: `next`, `record`, `undo`, `progress`.

    `system` picks one if several systems use the name. Raises UsageError if there is none.
    """
    return queue.open_queue(Store(Path(store)), name, system=system)


def queues(*, store: str | os.PathLike[str] = "store") -> list[LabelQueue]:
    """Return the newest queue of each name and system in a store, in this order."""
    return queue.queues(Store(Path(store)))

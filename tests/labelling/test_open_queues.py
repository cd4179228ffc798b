"""Queues that stay open in a front end see what others answer and publish meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_answers import published, source

from normloom.core.errors import UsageError
from normloom.labelling.queue import OpenQueues, open_queue
from normloom.store.store import Store


def test_an_open_queue_sees_the_answers_of_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published(store)
    queues = OpenQueues(store)
    queue = queues.one("tone", "toy")
    assert queue.progress().answered == 0
    other = open_queue(store, "tone")
    other.record(other.next("bob")[0], {"polite": "yes"}, "bob")
    again = queues.one("tone", "toy")
    assert again is queue
    assert queues.every() == [queue]
    assert again.progress().by_person == {"bob": 1}


def test_a_queue_that_is_published_again_takes_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    published(store)
    queues = OpenQueues(store)
    before = queues.one("tone", "toy")
    assert before.rows.height == 4
    published(store, source(["Another text."], [0.5]))
    after = queues.one("tone", "toy")
    assert after.rows.height == 1
    assert [row.shown for row in after.listed()] == [{"text": "Another text."}]
    with pytest.raises(UsageError, match="no queue for labels 'mood'"):
        queues.one("mood", "toy")

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from normloom.core.machine.collector import YOUNG_OBJECTS, collect_rarely, loading


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_garbage_is_looked_for_after_many_new_objects() -> None:
    collect_rarely()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS


def test_loading_exempts_what_exists_and_leaves_the_collector_as_it_was() -> None:
    gc.set_threshold(700, 10, 10)
    frozen = gc.get_freeze_count()
    with loading():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        kept = [[] for _ in range(1_000)]
    assert gc.get_threshold() == (700, 10, 10)
    assert gc.get_freeze_count() - frozen > len(kept)

from __future__ import annotations

import gc
import subprocess
import sys
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
        kept: list[list[int]] = [[] for _ in range(1_000)]
    assert gc.get_threshold() == (700, 10, 10)
    assert gc.get_freeze_count() - frozen > len(kept)


@pytest.mark.parametrize("more", ["", "import duckdb"], ids=["plain", "with a library that reports leaks"])
def test_a_process_that_ends_without_looking_for_garbage_says_nothing_of_leaks(more: str) -> None:
    code = f"{more}\nimport atexit\nfrom normloom.core.machine.collector import spare_last_look\n"
    code += "spare_last_look()\natexit.register(print, 'ended')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("ended\n", "")

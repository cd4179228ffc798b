"""A build on a Ray cluster of several nodes, one of which is killed half-way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from patient import start_cluster
from toy import SCRIPTED, echo_stage, runner, words_stage

from normloom.actor_crew import ActorCrew
from normloom.pool import Pool
from normloom.progress import LogProgress
from normloom.resources import Resources
from normloom.store import Store
from normloom.table import PartRecord

WORDS = words_stage(*(f"word{number}" for number in range(80)))
SLOW = SCRIPTED.model_copy(update={"options": {"words": 4, "latency_s": 0.25}})
STAGE = echo_stage(WORDS, model=SLOW)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes; the head has no place for an actor."""
    cluster = start_cluster()
    yield cluster
    cluster.shutdown()


class Change(LogProgress):
    """Changes the cluster after so many parts and remembers which parts were made."""

    def __init__(self, parts: int, change: Any) -> None:
        self.parts, self.change = parts, change
        self.seen: list[int] = []
        self.thread: threading.Thread | None = None

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage != "echo":
            return
        self.seen.append(part.index)
        if len(self.seen) == self.parts:
            self.thread = threading.Thread(target=self.change)
            self.thread.start()


def test_a_build_goes_on_when_a_node_is_killed(tmp_path: Path, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    resources = Resources(actors=2, threads=1, address=cluster.address)
    progress = Change(10, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    loom = replace(runner(Store(tmp_path / "cluster")), pool=Pool(resources), progress=progress)
    words, _ = loom.run(WORDS, [], [])
    table, _ = loom.run(STAGE, [words.ref], [])
    assert progress.thread is not None
    loom.pool.close()
    assert sorted(progress.seen) == list(range(40))  # each part was made once
    alone = runner(Store(tmp_path / "alone"))
    words, _ = alone.run(WORDS, [], [])
    undisturbed, _ = alone.run(
        echo_stage(WORDS, model=SCRIPTED.model_copy(update={"options": {"words": 4}})), [words.ref], []
    )
    assert table.content == undisturbed.content
    assert table.count("quarantined") == 0


class Grow(LogProgress):
    """Adds a node after two parts, and after six waits until it has an actor."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.seen: list[int] = []

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage != "echo":
            return
        self.seen.append(part.index)
        if len(self.seen) == 2:
            self.cluster.add_node(num_cpus=1)
        if len(self.seen) == 6:
            wait_for(lambda: len(actors()) == 2)


def wait_for(done: Callable[[], bool]) -> None:
    """Wait until `done`, a minute at most."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, "what the test waits for does not come"
        time.sleep(0.1)


def actors() -> list[psutil.Process]:
    """Return the processes of all actors on the nodes of this test."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.name().startswith("ray::_Worker")]


def test_a_crew_grows_with_its_cluster(tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    progress = Grow(cluster)
    pool = Pool(Resources(actors=1, max_actors=2, threads=1, address=cluster.address))
    try:
        loom = replace(runner(Store(tmp_path)), pool=pool, progress=progress)
        words, _ = loom.run(WORDS, [], [])
        table, _ = loom.run(STAGE, [words.ref], [])
        with pool.lease(SLOW) as crew:
            assert isinstance(crew, ActorCrew)
            assert crew.actors == 2
    finally:
        pool.close()
    assert table.work
    assert table.work.loads == 2
    assert sorted(progress.seen) == list(range(40))

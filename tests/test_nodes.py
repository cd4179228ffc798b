"""A build on a Ray cluster of several nodes, one of which is killed half-way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import SCRIPTED, echo_stage, runner, words_stage

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
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


class KillAt(LogProgress):
    """Kills a node after so many parts and remembers who made how many parts before and after."""

    def __init__(self, parts: int, kill: Any) -> None:
        self.parts, self.kill = parts, kill
        self.seen: list[int] = []
        self.killed_at: float | None = None

    def advance(self, stage: str, part: PartRecord) -> None:
        if stage != "echo":
            return
        self.seen.append(part.index)
        if len(self.seen) == self.parts:
            self.killed_at = time.monotonic()
            threading.Thread(target=self.kill).start()


def test_a_build_goes_on_when_a_node_is_killed(tmp_path: Path, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    resources = Resources(actors=2, threads=1, address=cluster.address)
    progress = KillAt(10, lambda: cluster.remove_node(nodes[0], allow_graceful=False))
    loom = replace(runner(Store(tmp_path / "cluster")), pool=Pool(resources), progress=progress)
    words, _ = loom.run(WORDS, [], [])
    table, _ = loom.run(STAGE, [words.ref], [])
    assert progress.killed_at is not None
    loom.pool.close()
    assert sorted(progress.seen) == list(range(40))  # each part was made once
    alone = runner(Store(tmp_path / "alone"))
    words, _ = alone.run(WORDS, [], [])
    undisturbed, _ = alone.run(
        echo_stage(WORDS, model=SCRIPTED.model_copy(update={"options": {"words": 4}})), [words.ref], []
    )
    assert table.content == undisturbed.content
    assert table.count("quarantined") == 0

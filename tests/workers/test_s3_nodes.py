"""A store in object storage on a Ray cluster whose nodes share no store folder; one of them is killed half-way."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from patient import add_node, start_cluster
from s3_server import s3_server

from normloom.core.progress import LogProgress
from normloom.core.table import PartRecord
from normloom.store.store import Store
from normloom.store.verify import verify
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage
from normloom.workers.resources import Resources

WORDS = words_stage(*(f"word{number}" for number in range(40)))
STAGE = echo_stage(WORDS, model=SCRIPTED.model_copy(update={"options": {"words": 4, "latency_s": 0.25}}))


def test_a_node_that_dies_changes_nothing_of_a_table_in_object_storage(tmp_path: Path) -> None:
    with s3_server() as server:
        cluster = start_cluster()
        try:
            nodes = [
                add_node(
                    cluster,
                    num_cpus=1,
                    env_vars={
                        **server.environment,
                        "NORMLOOM_CACHE": str(tmp_path / name),
                        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                    },
                )
                for name in ("one", "two")
            ]
            cluster.wait_for_nodes()
            killing: list[threading.Thread] = []

            class Kills(LogProgress):
                made = 0

                def advance(self, stage: str, part: PartRecord) -> None:
                    del part
                    self.made += stage == "echo"
                    if self.made == 4 and not killing:
                        killing.append(threading.Thread(target=cluster.remove_node, args=(nodes[0],)))
                        killing[0].start()

            resources = Resources(actors=2, threads=1, address=cluster.address)
            store = Store(f"s3://{server.bucket}/cluster")
            loom = runner(store, resources=resources)
            loom = replace(loom, progress=Kills())
            with closing(loom.pool):
                words, _ = loom.run(WORDS, [], [])
                made, _ = loom.run(STAGE, [words.ref], [])
            assert killing
            killing[0].join()
            disk = runner(Store(tmp_path / "disk"))
            there, _ = disk.run(WORDS, [], [])
            assert disk.run(STAGE, [there.ref], [])[0].content == made.content
            assert list(verify(store)) == []
        finally:
            cluster.shutdown()

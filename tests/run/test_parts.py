"""Parts whose process ends when they are done, or that cannot be made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from normloom.core.errors import StageError
from normloom.core.progress import LogProgress
from normloom.run.runner import StageRunner
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage
from normloom.workers.crew import Crew, InlineCrew, PartResult
from normloom.workers.parts.job import PartFailure, PartJob
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


class LastWords(InlineCrew):
    """Makes each part and dies before it can say so."""

    def run(self, *given: Any, **named: Any) -> Iterator[tuple[PartJob, PartResult]]:
        for job, _ in super().run(*given, **named):
            yield job, PartFailure("killed", died=True)


class Doomed(StageRunner):
    """A runner whose crew dies with each part."""

    @contextmanager
    def _crew(self, table: Any, jobs: Any) -> Iterator[Crew]:  # noqa: ARG002  # as it is called
        yield LastWords(SCRIPTED)


def test_a_part_that_was_done_when_its_process_died_counts(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), echo_stage(words_stage("a", "b", "c"))
    words, _ = runner(store).run(stage.inputs[0], [], [])
    loom = Doomed(system="toy", store=store, pool=Pool(Resources(actors=0)), build="test", progress=LogProgress())
    made, _ = loom.run(stage, [words.ref], [])
    assert (made.count("rows"), made.count("quarantined"), len(made.parts)) == (3, 0, 2)


def test_a_part_that_cannot_be_made_again_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, echo_stage(words_stage("a", "bad")), build=build_id(1))
    table = store.current("toy", "echo")
    assert table
    failing = SCRIPTED.model_copy(update={"options": {"raise_on": "bad"}})
    with pytest.raises(StageError, match=r"stage 'echo', part 0: .*the request holds 'bad'"):
        runner(store).made_again(echo_stage(words_stage("a", "bad"), model=failing), table, 0)

"""Builds that make every table again, and what resumes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_home import Prefect

from normloom.core.errors import BuildCancelledError
from normloom.core.stage import Stage
from normloom.history.fresh import fresh_since
from normloom.history.resume import resume_command
from normloom.history.unfinished import UnfinishedBuild, recorded
from normloom.planning.plan import plan
from normloom.run.build import BuildRequest, BuildResult, build
from normloom.steps.graph import stages_of
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

INLINE = Resources(actors=0)


@pytest.fixture(scope="module", autouse=True)
def prefect(shared_prefect: Prefect) -> Iterator[None]:
    with shared_prefect.used():
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def flow() -> list[Stage]:
    words = words_stage("a", "b", "c")
    return [echo_stage(words)]


def make(store: Store, selection: Selection) -> BuildResult:
    request = BuildRequest(system="toy", selection=selection)
    return build(*flow(), request=request, store=store, pool=Pool(INLINE))


def states(store: Store, selection: Selection) -> dict[str, str]:
    planned = plan(stages_of(*flow()), system="toy", store=store, resources=INLINE, selection=selection)
    return {one.stage.name: one.state for one in planned.stages}


def test_a_fresh_build_makes_every_table_again_and_plan_says_so(store: Store) -> None:
    first = make(store, Selection())
    fresh = Selection(fresh=fresh_since(store, "toy"))
    assert set(states(store, fresh).values()) == {"again"}
    second = make(store, fresh)
    assert second.reused == frozenset()
    assert {one.remake for one in second.manifests} == {1}
    assert [one.content for one in second.manifests] == [one.content for one in first.manifests]
    assert make(store, Selection()).reused == {"words", "echo"}


def test_one_that_did_not_finish_is_resumed_and_the_next_starts_over(store: Store) -> None:
    make(store, Selection())
    since = fresh_since(store, "toy")
    fresh = Selection(fresh=since)
    record = UnfinishedBuild(system="toy", build="29991231T000000-aaaa", selection={"fresh": since})
    make(store, Selection(fresh=since, only=("words",)))
    with pytest.raises(BuildCancelledError), recorded(store, record):
        raise BuildCancelledError("killed half-way")
    assert fresh_since(store, "toy") == since
    assert states(store, fresh) == {"words": "reused", "echo": "again"}
    (store.root / "toy" / "builds" / "29991231T000000-aaaa.json").unlink()
    make(store, fresh)
    assert fresh_since(store, "toy") > since


def test_the_command_that_resumes_it_is_fresh_too(store: Store) -> None:
    record = UnfinishedBuild(
        system="toy", build="b", selection={"fresh": "2026-11-27T00:00:00+00:00", "only": ["words"]}
    )
    assert resume_command(record, store).startswith("normloom build toy --fresh --only words")

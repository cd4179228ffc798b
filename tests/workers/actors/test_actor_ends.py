"""Actors that end themselves or are killed: another one makes their parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from batching_engine import installed
from mortal_engine import DIED, NAME, SLEEPLESS

from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage
from normloom.workers.actors.actor import answers
from normloom.workers.actors.actor_crew import ActorCrew
from normloom.workers.pool import Pool, Waits
from normloom.workers.resources import Resources

ONE = Resources(actors=1, threads=1)
WORDS = words_stage("a", "b", "c")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with closing(Pool(ONE)) as pool:
        yield pool


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[ModelSpec]:
    notes = tmp_path / "notes"
    notes.mkdir()
    with installed(tmp_path / "engine", NAME):
        yield ModelSpec(engine=NAME, model=str(notes))


def build(pool: Pool, store: Store, model: ModelSpec) -> Manifest:
    loom = replace(runner(store), pool=pool)
    words, _ = loom.run(WORDS, [], [])
    return loom.run(echo_stage(WORDS, model=model, part_rows=1), [words.ref], [])[0]


def test_an_actor_whose_engine_is_gone_is_replaced(
    tmp_path: Path, pool: Pool, mortal: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    assert build(pool, Store(tmp_path), mortal).count("rows") == 3
    assert Path(mortal.model, DIED).exists()
    assert "died while it made part" in caplog.text


def test_an_actor_whose_model_does_not_wake_up_is_replaced(
    tmp_path: Path, pool: Pool, mortal: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    Path(mortal.model, DIED).touch()
    with pool.lease(mortal) as crew:
        assert isinstance(crew, ActorCrew)
        assert crew.sleep()
        Path(mortal.model, SLEEPLESS).touch()
        crew.wake()
    assert build(pool, Store(tmp_path), mortal).count("rows") == 3
    assert "starting another" in caplog.text


def test_an_actor_that_died_over_a_copy_that_nobody_waits_for_is_replaced(
    tmp_path: Path, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    with pool.lease(SCRIPTED) as crew:
        assert isinstance(crew, ActorCrew)
        [actor] = crew._ready
        ray.kill(actor)
        while list(answers([actor.progress.remote()])):  # it is told to end, and may answer until it has
            pass
        crew._outrun[actor.progress.remote()] = actor
    manifest = build(pool, Store(tmp_path), SCRIPTED)
    assert (manifest.count("rows"), manifest.count("quarantined")) == (3, 0)
    assert "starting another" in caplog.text


def test_a_model_that_waits_for_a_ray_of_the_builds_own_ends_no_other(pool: Pool) -> None:
    told: list[str] = []
    with pool.lease(SCRIPTED) as crew:
        pass
    pool._give_way(ONE, Waits(told.append))
    with pool.lease(SCRIPTED) as again:
        assert again is crew
    assert told == []

"""Models that sleep on GPUs of which Ray is told; the models of these tests need none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from patient import start_ray

from normloom.core.errors import ModelError
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, runner, words_stage
from normloom.workers.actors.actor_crew import ActorCrew
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@pytest.fixture(scope="module")
def gpus(request: pytest.FixtureRequest) -> Iterator[int]:
    """A Ray that is told of as many GPUs; no model of these tests looks for them."""
    import ray

    start_ray(num_cpus=2, num_gpus=request.param)
    yield request.param
    ray.shutdown()


on_one = pytest.mark.parametrize("gpus", [1], indirect=True)
on_two = pytest.mark.parametrize("gpus", [2], indirect=True)


@on_one
@pytest.mark.parametrize(
    ("sleepers", "can", "names", "loads"),
    [
        (0, True, "one two one", {"one": 2, "two": 1}),
        (1, False, "one two one", {"one": 2, "two": 1}),
        (1, True, "one two three one two", {"one": 1, "two": 2, "three": 1}),
    ],
)
def test_models_that_sleep_share_a_gpu(gpus: int, sleepers: int, can: bool, names: str, loads: dict[str, int]) -> None:
    assert loads_of(gpus, sleepers, can, names) == loads


@on_two
def test_models_that_sleep_share_all_gpus(gpus: int) -> None:
    assert loads_of(gpus, 2, True, "one two three one two") == {"one": 1, "two": 1, "three": 1}


def loads_of(gpus: int, sleepers: int, can: bool, names: str) -> Mapping[str, int]:
    """Lease models in turn, each with an actor on every GPU, and return how often each was loaded."""
    uses = [SCRIPTED.model_copy(update={"model": name, "options": {"sleeps": can}}) for name in names.split()]
    return leased_in_turn(Resources(actors=gpus, threads=1, gpus=1, sleepers=sleepers), uses)


@on_two
@pytest.mark.usefixtures("gpus")
def test_a_model_over_several_gpus_ends_those_that_sleep_there() -> None:
    small = SCRIPTED.model_copy(update={"model": "small", "options": {"sleeps": True}})
    other = small.model_copy(update={"model": "other"})
    large = SCRIPTED.model_copy(update={"model": "large", "actors": 1, "gpus": 2.0})
    resources = Resources(actors=2, threads=1, gpus=1, sleepers=1)
    assert leased_in_turn(resources, [small, other, large, other]) == {"small": 1, "other": 2, "large": 1}


TWICE = Needs(gpus=1, threads=1, memory=0.5, processes=2)


@step(makes={"word": pl.String, "took": pl.String}, needs=TWICE, part_rows=1)
def takes(rows: pl.DataFrame, *, meeting: str) -> pl.DataFrame:
    """Tell which resources of Ray its process has taken, and which GPU it was given, once two processes have begun."""
    import ray

    context = ray.get_runtime_context()
    Path(meeting, str(context.get_actor_id())).touch()
    ends = time.monotonic() + 60
    while len(list(Path(meeting).iterdir())) < 2 and time.monotonic() < ends:
        time.sleep(0.02)
    told = {**context.get_assigned_resources(), "gpus": ray.get_gpu_ids(), "actor": context.get_actor_id()}
    return rows.select("row_id", "word", took=pl.lit(json.dumps(told)))


@on_two
@pytest.mark.usefixtures("gpus")
def test_processes_of_a_stage_take_the_gpus_and_the_memory_that_it_needs(tmp_path: Path) -> None:
    words, meeting = words_stage(*"abcdef"), tmp_path / "meeting"
    meeting.mkdir()
    loom = runner(Store(tmp_path), resources=Resources(actors=1, threads=1))
    try:
        source, _ = loom.run(words, [], [])
        made, _ = loom.run(takes(words, meeting=str(meeting)), [source.ref], [])
    finally:
        loom.pool.close()
    told = [json.loads(one) for one in loom.store.scan(made.ref).collect()["took"]]
    assert {(one["CPU"], one["GPU"], one["memory"]) for one in told} == {(1.0, 1.0, 0.5e9)}
    assert len({one["actor"] for one in told}) == 2  # side by side
    assert len({tuple(one["gpus"]) for one in told}) == 2  # each on a GPU of its own


@on_two
@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("needs", "told"), [(Needs(gpus=3), "1 threads, 3 GPUs"), (Needs(memory=90_000), "1 threads, 0 GPUs, 90000 GB")]
)
def test_a_stage_that_needs_more_than_there_is_fails_and_says_so(tmp_path: Path, needs: Needs, told: str) -> None:
    words = words_stage("a")
    loom = runner(Store(tmp_path), resources=Resources(actors=1, threads=1))
    try:
        source, _ = loom.run(words, [], [])
        with pytest.raises(ModelError, match=f"for 'takes' with {told} each do not fit: Ray has .* GB; ask for less"):
            loom.run(replace(takes(words, meeting=str(tmp_path)), needs=needs), [source.ref], [])
    finally:
        loom.pool.close()


def leased_in_turn(resources: Resources, uses: Sequence[ModelSpec]) -> Mapping[str, int]:
    """Lease the models one after another and return how often each was loaded."""
    pool = Pool(resources, uses=uses)
    for spec in uses:
        with pool.lease(spec) as crew:
            assert isinstance(crew, ActorCrew)
            assert crew.actors == resources.of(spec).actors
    pool.close()
    return pool.loads

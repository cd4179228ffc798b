"""Models that sleep on GPUs of which Ray is told; the models of these tests need none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from patient import start_ray

from normloom.core.protocol import ModelSpec
from normloom.testing.toy import SCRIPTED
from normloom.workers.actor_crew import ActorCrew
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A Ray that is told of two GPUs; no model of these tests looks for them."""
    import ray

    start_ray(num_cpus=2, num_gpus=2)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("sleepers", "can", "loads"),
    [
        (0, True, {"one": 2, "two": 2, "three": 1}),
        (1, False, {"one": 2, "two": 2, "three": 1}),
        (1, True, {"one": 1, "two": 2, "three": 1}),
        (2, True, {"one": 1, "two": 1, "three": 1}),
    ],
)
def test_models_that_sleep_share_their_gpus(sleepers: int, can: bool, loads: dict[str, int]) -> None:
    uses = [
        SCRIPTED.model_copy(update={"model": name, "options": {"sleeps": can}})
        for name in ("one", "two", "three", "one", "two")
    ]
    assert leased_in_turn(Resources(actors=2, threads=1, gpus=1, sleepers=sleepers), uses) == loads


@pytest.mark.usefixtures("two_gpus")
def test_a_model_over_several_gpus_ends_those_that_sleep_there() -> None:
    small = SCRIPTED.model_copy(update={"model": "small", "options": {"sleeps": True}})
    other = small.model_copy(update={"model": "other"})
    large = SCRIPTED.model_copy(update={"model": "large", "actors": 1, "gpus": 2.0})
    resources = Resources(actors=2, threads=1, gpus=1, sleepers=1)
    assert leased_in_turn(resources, [small, other, large, other]) == {"small": 1, "other": 2, "large": 1}


def leased_in_turn(resources: Resources, uses: Sequence[ModelSpec]) -> Mapping[str, int]:
    """Lease the models one after another and return how often each was loaded."""
    pool = Pool(resources, uses=uses)
    for spec in uses:
        with pool.lease(spec) as crew:
            assert isinstance(crew, ActorCrew)
            assert crew.actors == resources.of(spec).actors
    pool.close()
    return pool.loads

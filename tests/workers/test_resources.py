from __future__ import annotations

import os
from dataclasses import replace

import pytest
from pydantic import ValidationError

from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import Needs
from normloom.core.models.protocol import ModelSpec
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.resources import Resources, fit, taken

MODEL = ModelSpec(model="m")


def test_a_model_s_own_settings_take_the_place_of_the_build_s() -> None:
    build = Resources(actors=4, threads=2, cpus=1.5, gpus=1)
    large = build.of(ModelSpec(model="m", actors=2, gpus=4))
    assert (large.actors, large.gpus, large.actor["CPU"]) == (2, 4, 1.5)
    assert build.of(ModelSpec(model="m", threads=8)).actor == {"CPU": 8.0, "GPU": 1.0}
    assert build.of(MODEL) == build


def test_a_build_without_actors_stays_without() -> None:
    assert Resources(actors=0).of(ModelSpec(model="m", actors=4)).actors == 0


def test_a_model_that_runs_elsewhere_is_asked_by_one_actor_without_a_gpu() -> None:
    build = Resources(actors=8, max_actors=16, gpus=1)
    hosted = build.of(ModelSpec(engine="openai", model="m"))
    assert (hosted.actors, hosted.max_actors, hosted.gpus) == (1, None, 0.0)
    assert build.of(ModelSpec(engine="openai", model="m", actors=2)).actors == 2


def test_a_model_may_have_more_actors_than_the_build_grows_to() -> None:
    assert Resources(actors=1, max_actors=2).of(ModelSpec(model="m", actors=3)).max_actors == 3


def test_the_most_must_not_be_less_than_the_least() -> None:
    with pytest.raises(ValidationError, match="max_actors 1 is less than actors 2"):
        Resources(actors=2, max_actors=1)


def test_sleepers_need_a_gpu_for_each_actor_and_crews_that_do_not_grow() -> None:
    with pytest.raises(ValidationError, match=r"one GPU each, gpus is 0\.5"):
        Resources(gpus=0.5, sleepers=1)
    with pytest.raises(ValidationError, match="exclude each other"):
        Resources(gpus=1, sleepers=1, max_actors=2)
    shared = Resources(gpus=1, sleepers=1)
    assert shared.of(ModelSpec(model="m", actors=1)).sleepers == 1
    for other in ({"gpus": 4}, {"threads": 8}):  # has no room in a place cut for one GPU and one thread
        assert shared.of(ModelSpec(model="m", **other)).sleepers == 0


@pytest.mark.parametrize(
    ("resources", "places"),
    [
        (Resources(threads=4), 4),
        (Resources(threads=1, cpus=0.1), 160),  # ten tenths are one
        (Resources(threads=1, gpus=0.5), 4),
        (Resources(threads=1, gpus=4), 0),
        (Resources(threads=8, gpus=1), 2),
    ],
)
def test_places_in_a_cluster(resources: Resources, places: int) -> None:
    assert resources.places({"CPU": 16.0, "GPU": 2.0}) == places


def test_what_crews_take_together_must_be_there() -> None:
    crews = [(Resources(threads=2), 3), (Resources(threads=1, gpus=1), 2)]
    assert taken(crews) == {"CPU": 8.0, "GPU": 2.0}
    assert fit(crews, {"CPU": 8, "GPU": 2})
    assert not fit(crews, {"CPU": 8, "GPU": 1})
    assert not fit(crews, {"CPU": 7.5, "GPU": 2})
    assert fit([(Resources(cpus=0.1), 10)], {"CPU": 1})


def test_models_of_a_step_are_planned_together() -> None:
    roles = {
        "policy": ModelSpec(model="a", gpus=2, memory=40),
        "judge": ModelSpec(model="b", gpus=0.5, threads=8),
        "encoder": ModelSpec(model="c", gpus=0),
        "hosted": ModelSpec(engine="openai", model="d"),
    }
    wanted = Resources(actors=2, threads=2, memory=4).of(RolesSpec.of(roles))
    assert wanted.actor == {"CPU": 8.0, "GPU": 2.5, "memory": 52e9}
    assert wanted.actors == 2
    assert not fit([(wanted, 2)], {"CPU": 16, "GPU": 4, "memory": 200e9})
    assert fit([(wanted, 1)], {"CPU": 16, "GPU": 4, "memory": 200e9})


def test_a_stage_s_needs_come_after_its_model_s_settings_and_before_the_build_s() -> None:
    stage = replace(echo_stage(words_stage("a"), model=ModelSpec(model="m", gpus=2)), needs=Needs(gpus=1, memory=8))
    assert stage.holds
    wanted = Resources(actors=3, threads=4, memory=2).of(stage.holds)
    assert (wanted.actors, wanted.threads, wanted.gpus, wanted.memory) == (3, 4, 2, 8)
    several = replace(stage, needs=Needs(processes=2)).holds
    assert several
    assert Resources(actors=1, gpus=1).of(several).actors == 2


def test_ray_on_this_machine_says_it_has_what_its_models_ask_for() -> None:
    cpus = os.cpu_count() or 1
    assert Resources().processors([]) == cpus
    assert Resources(actors=cpus, threads=3).processors([]) == 3 * cpus
    assert Resources().processors([ModelSpec(model="m", actors=cpus + 1)]) == cpus + 1

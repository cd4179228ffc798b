from __future__ import annotations

from dataclasses import replace

import pytest

from normloom.core.errors import ConfigError
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.routed_model import RoutedSpec
from normloom.steps.graph import farthest, load_order, model_uses, stages_of, with_models
from normloom.steps.products import routed
from normloom.testing.toy import SCRIPTED, echo_stage, words_stage


def test_stages_come_after_those_they_read_and_once_each() -> None:
    words = words_stage("a")
    one, two = echo_stage(words), echo_stage(words)
    ordered = stages_of(one, words)
    assert ordered == [words, one]
    assert model_uses(ordered) == [SCRIPTED]
    with pytest.raises(ConfigError, match="two stages of the flow are named 'echo'"):
        stages_of(one, two)


@pytest.mark.parametrize(
    ("room", "loads"),
    [
        (1, ["e", "m", "j", "m", "j"]),
        (2, ["e", "m", "j"]),
        (3, ["e", "m", "j"]),
    ],
)
def test_a_model_stays_while_there_is_room(room: int, loads: list[str]) -> None:
    assert load_order(["e", "m", "m", "j", "m", "j"], lambda names: len(names) <= room) == loads


def test_the_model_that_is_used_last_makes_room() -> None:
    assert farthest(["a", "b", "c"], ["b", "a", "c", "b"]) == "c"
    assert farthest(["a", "b", "c"], ["c", "b"]) == "a"
    assert load_order(["a", "b", "c", "a", "b"], lambda names: len(names) <= 2) == ["a", "b", "c", "b"]


def test_each_of_several_models_is_changed() -> None:
    roles = RolesSpec.of({"writer": SCRIPTED, "judge": SCRIPTED})
    [end] = with_models(
        [echo_stage(words_stage("a"), model=roles)], lambda spec: spec.model_copy(update={"model": "other"})
    )
    assert isinstance(end.model, RolesSpec)
    assert {role: spec.model for role, spec in end.model.roles.items()} == {"writer": "other", "judge": "other"}
    assert end.model.model == "writer other + judge other"


def test_each_part_of_a_routed_model_is_changed() -> None:
    words = words_stage("a")
    expert, router = (
        replace(echo_stage(words, part_rows=None), name=files, files=files) for files in ("adapter", "router")
    )
    stage = echo_stage(words, model=routed(SCRIPTED, {"one": expert, "two": expert}, router))
    [changed] = with_models([stage], lambda spec: spec.model_copy(update={"threads": 3}))
    assert isinstance(changed.model, RoutedSpec)
    assert [spec.threads for spec in changed.model.made_of()] == [3, 3, 3]

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from normloom.core.models.protocol import ModelSpec, Sampling
from normloom.settings.config import load_profile, validated
from normloom.settings.setting_list import settings_of
from normloom.settings.systems import systems


class Drawing(BaseModel):
    sampling: Sampling = Sampling(max_tokens=64)
    runs: int = Field(3, ge=1, description="how often")


class Config(BaseModel):
    models: dict[str, ModelSpec]
    judge: ModelSpec
    drawing: Drawing = Drawing()
    mode: Literal["a", "b"] | None = None
    names: tuple[str, ...] = ()


SPEC = ModelSpec(engine="scripted", model="toy")


def test_every_setting_is_listed_with_value_default_bounds_and_meaning() -> None:
    config = Config(models={"small": SPEC}, judge=SPEC, drawing=Drawing(runs=5), names=("x",))
    found = {setting.name: setting for setting in settings_of(config)}
    assert list(found) == [
        *("judge", "mode", "names", "models.small"),
        *(f"drawing.sampling.{name}" for name in Sampling.model_fields),
        "drawing.runs",
    ]
    runs = found["drawing.runs"]
    assert (runs.value, runs.default, runs.allowed, runs.description) == ("5", "3", "at least 1", "how often")
    assert runs.changed
    assert found["mode"].allowed == "a | b | null"
    assert (found["names"].value, found["names"].default) == ("[x]", "[]")
    assert (found["judge"].value, found["judge"].default) == ("toy (scripted)", None)


def test_the_default_of_a_nested_setting_is_that_of_its_section() -> None:
    config = Config(models={}, judge=SPEC, drawing=Drawing(sampling=Sampling(max_tokens=9)))
    tokens = next(setting for setting in settings_of(config) if setting.name == "drawing.sampling.max_tokens")
    assert (tokens.value, tokens.default) == ("9", "64")


@pytest.mark.parametrize("system", systems())
def test_every_setting_says_what_it_means(system: str) -> None:
    config, resources = validated(systems()[system].config, load_profile("local", system))
    silent = [setting.name for setting in (*settings_of(config), *settings_of(resources)) if not setting.description]
    assert silent == []


class Leaving(BaseModel):
    drawing: Drawing | None = Drawing(runs=5)


def test_a_section_that_is_left_out_says_what_it_would_be() -> None:
    [drawing] = settings_of(Leaving(drawing=None))
    assert (drawing.value, drawing.default) == ("null", "{runs: 5}")

"""A name is one folder of a store, wherever it is given."""

from __future__ import annotations

import pytest

import normloom as nl
from normloom.core.errors import ConfigError
from normloom.settings.flow_file import FlowConfig
from normloom.settings.system import System

REFUSED = ("a/b", "../up", ".hidden", " ", 'quo"te', "a%b", "builds", "latest")


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^stage "):
        nl.table([{"a": 1}], name=name)
    with pytest.raises(ConfigError, match=r"^system "):
        System(name=name, title="", config=FlowConfig, flow=lambda config: [])  # noqa: ARG005  # a flow takes settings


@pytest.mark.parametrize("name", ["a", "a_1", "my-flow", "zwölf", "two words", "v1.2"])
def test_other_names_are_taken(name: str) -> None:
    assert nl.table([{"a": 1}], name=name).name == name

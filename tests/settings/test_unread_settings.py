"""Every documented setting of every system is read by some code (C13)."""

from __future__ import annotations

import pytest
from pydantic import Field

from normloom.settings.config import Settings
from normloom.settings.system_config import SystemConfig
from normloom.settings.systems import systems
from normloom.testing.unread import unread_settings


class Routing(Settings):
    width: int = Field(8, description="is read below")
    epsilon: float = Field(0.1, description="is read nowhere")
    sharpness: float = Field(1.0, description="is looked up by its name")


class Looked(Settings):
    one: int = Field(1, description="is looked up by whatever name is given")

    def of(self, name: str) -> int:
        return int(getattr(self, name))


class Configured(SystemConfig):
    routing: Routing = Routing()
    looked: Looked = Looked()


def flow(config: Configured) -> list[object]:
    return [config.routing.width, dict(config.routing)["sharpness"], config.looked.of("one")]


@pytest.mark.parametrize("system", systems())
def test_every_setting_of_a_system_is_read(system: str) -> None:
    assert unread_settings(systems()[system].config) == []


def test_a_setting_that_is_read_nowhere_is_found() -> None:
    assert unread_settings(Configured) == ["routing.epsilon"]
    assert len(flow(Configured())) == 3

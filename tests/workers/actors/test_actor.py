from __future__ import annotations

import logging

import pytest

from normloom.testing.toy import SCRIPTED
from normloom.workers.actors.actor import ModelActor


class Stubborn:
    """A model that neither sleeps nor ends."""

    def sleep(self) -> bool:
        raise RuntimeError("no rest")

    def wake(self) -> None: ...

    def close(self) -> None:
        raise RuntimeError("no end")


def test_a_model_that_neither_sleeps_nor_ends_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="normloom.crew")
    actor = ModelActor(SCRIPTED, 1, [])
    actor._model = Stubborn()
    assert not actor.sleep()
    actor.wake()
    actor.end()
    assert caplog.messages == ["model toy cannot be put to sleep", "model toy did not close"]

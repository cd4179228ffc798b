from __future__ import annotations

import pytest
from toy import SCRIPTED, echo_stage, words_stage

from normloom.errors import ConfigError
from normloom.graph import model_uses, stages_of


def test_stages_come_after_those_they_read_and_once_each() -> None:
    words = words_stage("a")
    one, two = echo_stage(words), echo_stage(words)
    ordered = stages_of(one, words)
    assert ordered == [words, one]
    assert model_uses(ordered) == [SCRIPTED]
    with pytest.raises(ConfigError, match="two stages of the flow are named 'echo'"):
        stages_of(one, two)

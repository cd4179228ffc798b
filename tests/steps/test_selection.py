from __future__ import annotations

import pytest

from normloom.core.errors import UsageError
from normloom.core.stage import Output, Stage
from normloom.steps.selection import Selection
from normloom.testing.toy import Echo, echo_stage, words_stage

WORDS = words_stage("a")
ECHO = echo_stage(WORDS)


def unread(*tables: object) -> Output:
    raise NotImplementedError


BESIDE = Stage(name="beside", function=unread, arguments=Echo(), contract=ECHO.contract, inputs=(WORDS,))
LAST = Stage(name="last", function=unread, arguments=Echo(), contract=ECHO.contract, inputs=(ECHO,), sides=(BESIDE,))
STAGES = [WORDS, ECHO, BESIDE, LAST]


def names(stages: list[Stage]) -> list[str]:
    return [stage.name for stage in stages]


def test_everything_is_chosen_by_default() -> None:
    assert Selection().chosen(STAGES) == {"words", "echo", "beside", "last"}
    assert Selection().needed(STAGES) == STAGES
    assert not Selection().partial


def test_only_chooses_the_named_stages_and_needs_what_they_read() -> None:
    selection = Selection(only=("echo",))
    assert selection.chosen(STAGES) == {"echo"}
    assert names(selection.needed(STAGES)) == ["words", "echo"]
    assert selection.partial


def test_from_chooses_a_stage_and_all_that_stands_on_it_by_whatever_way() -> None:
    assert Selection(start="echo").chosen(STAGES) == {"echo", "last"}
    assert names(Selection(start="echo").needed(STAGES)) == ["words", "echo", "beside", "last"]
    assert Selection(start="beside").chosen(STAGES) == {"beside", "last"}


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(only=("ehco",)), "unknown stage 'ehco'; did you mean echo"),
        (Selection(force=("judge",)), "unknown stage 'judge'; available: words, echo, beside, last"),
        (Selection(only=("echo",), start="echo"), "--only and --from exclude each other"),
        (
            Selection(only=("echo",), force=("last",)),
            "stage 'last' is to be rebuilt but is not among the stages to build",
        ),
    ],
)
def test_a_selection_that_cannot_be_is_refused(selection: Selection, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        selection.chosen(STAGES)

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from normloom.core.contract import Check, Contract
from normloom.core.stage import Stage
from normloom.planning.keys import canonical, digest, key_fields, stage_key
from normloom.testing.toy import SCRIPTED, Words, echo_stage, words_stage

TEXT = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def key(stage: Stage, *inputs: str) -> str:
    return stage_key(key_fields("toy", stage, inputs=inputs, sides=[]))


@given(st.dictionaries(TEXT, JSON, max_size=6))
def test_the_order_of_settings_does_not_count(settings: dict[str, object]) -> None:
    assert digest(settings) == digest(dict(reversed(settings.items())))


@given(JSON, JSON)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    assert (digest(one) == digest(other)) == (repr(canonical(one)) == repr(canonical(other)))


def test_a_path_stays_out_and_what_it_holds_stays_in() -> None:
    here, there = Words(words=("a",), where=Path("/here")), Words(words=("a",), where=Path("/there"))
    assert digest(here) == digest(there)
    assert digest(here) != digest(Words(words=("b",), where=Path("/here")))


def test_a_value_that_cannot_be_compared_is_refused() -> None:
    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: object = Field(default_factory=object)

    with pytest.raises((TypeError, ValueError)):
        digest(Odd())


def test_everything_the_function_sees_changes_the_key() -> None:
    words = words_stage("a")
    plain = echo_stage(words)
    larger = Contract(columns=plain.contract.columns, checks=(Check(expectation="expect_table_row_count_to_equal"),))
    keys = {
        "plain": key(plain, "input"),
        "input": key(plain, "other input"),
        "arguments": key(echo_stage(words, copies=2), "input"),
        "part rows": key(echo_stage(words, part_rows=3), "input"),
        "model": key(echo_stage(words, model=SCRIPTED.model_copy(update={"model": "b"})), "input"),
        "options": key(echo_stage(words, model=SCRIPTED.model_copy(update={"options": {"words": 5}})), "input"),
        "contract": key(Stage(**{**vars(plain), "contract": larger}), "input"),
        "name": key(Stage(**{**vars(plain), "name": "other"}), "input"),
    }
    assert len(set(keys.values())) == len(keys)
    assert key(echo_stage(words), "input") == keys["plain"]


class Colour(Enum):
    RED = "red"


def test_a_member_of_an_enumeration_is_its_value() -> None:
    assert canonical({"colour": Colour.RED}) == {"colour": "red"}

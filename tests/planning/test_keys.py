from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from normloom.core.contract import Check, Contract
from normloom.core.errors import UsageError
from normloom.core.stage import Stage
from normloom.planning.canonical import canonical, digest
from normloom.planning.keys import key_fields, stage_key
from normloom.steps.args import Args
from normloom.steps.step import step
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

    with pytest.raises(TypeError, match="thing: a value of type object cannot enter a key"):
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


class Inner(Args):
    low: int = 1


class Wider(Inner):
    high: int = 2


class Holding(Args):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    names: frozenset[str] = frozenset()
    inner: Inner = Inner()
    pattern: re.Pattern[str] = re.compile("a")
    raw: bytes = b"a"
    names_by: Mapping[int | str, str] = Field(default_factory=dict)
    thing: Any = None


def test_a_set_enters_a_key_in_the_same_order_in_every_process() -> None:
    code = (
        "from pydantic import BaseModel; from normloom.planning.canonical import digest\n"
        "class Holding(BaseModel): names: frozenset[str]\n"
        "print(digest(Holding(names=frozenset('abcdefgh'))))"
    )
    seeds = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in (1, 2)]
    told = {subprocess.run([sys.executable, "-c", code], env=seed, check=True, stdout=-1).stdout for seed in seeds}
    assert len(told) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"inner": Wider(high=3)}, {"inner": Wider(high=4)}),
        ({"pattern": re.compile("a")}, {"pattern": re.compile("a", re.IGNORECASE)}),
        ({"raw": b"\xff"}, {"raw": b"\xfe"}),
        ({"names_by": {1: "a"}}, {"names_by": {"1": "a"}}),
        ({"thing": date(2026, 1, 1)}, {"thing": date(2026, 1, 2)}),
        ({"thing": Decimal("1.10")}, {"thing": Decimal("1.1")}),
    ],
)
def test_every_value_that_differs_counts(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(Holding(**one)) != digest(Holding(**other))
    assert digest(Holding(**one)) == digest(Holding(**one))


@step(makes={"word": pl.String})
def judged(rows: pl.DataFrame, args: Holding, *, by: object = None) -> pl.DataFrame:
    return rows.with_columns(word=pl.lit(f"{args} {by}"))


@pytest.mark.parametrize("given", [{"args": Holding(thing=len)}, {"args": Holding(), "by": len}])
def test_an_argument_that_cannot_enter_a_key_is_named_with_its_stage(given: dict[str, Any]) -> None:
    name = "by" if "by" in given else "thing"
    with pytest.raises(UsageError, match=f"stage 'judged': argument {name}: a value of type builtin"):
        key(judged(words_stage("a"), **given))


def test_a_date_is_a_value_of_a_call() -> None:
    given = [key(judged(words_stage("a"), Holding(), by=date(2026, 1, day))) for day in (1, 2, 1)]
    assert given[0] == given[2] != given[1]

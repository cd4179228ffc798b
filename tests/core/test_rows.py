from __future__ import annotations

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.rows import ids
from normloom.core.rows.forgotten import strings
from normloom.core.rows.ids import row_id, row_ids, seed

TEXTS = st.text(alphabet="ab\x1f", max_size=3)


def ids_of(families: list[list[str]]) -> list[str]:
    rows = pl.DataFrame({"parents": families}, schema={"parents": pl.List(pl.String)})
    return row_ids("s", "t", rows, "parents")


def test_an_id_is_the_hash_of_system_stage_parents_and_ordinal() -> None:
    expected = hashlib.blake2b(b"savacu\x1fexpand\x1fp1\x1fp2\x1f3", digest_size=16).hexdigest()
    assert row_id("savacu", "expand", ["p1", "p2"], 3) == expected


def test_siblings_are_numbered_apart_from_other_families() -> None:
    found = ids_of([["a"], ["b"], ["a"], ["a", "b"]])
    assert found == [
        row_id("s", "t", ["a"], 0),
        row_id("s", "t", ["b"], 0),
        row_id("s", "t", ["a"], 1),
        row_id("s", "t", ["a", "b"], 0),
    ]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=2), max_size=20))
def test_ids_are_unique_and_do_not_depend_on_other_families(parents: list[list[str]]) -> None:
    found = ids_of(parents)
    assert len(set(found)) == len(found)
    only_a = [family for family in parents if family == ["a"]]
    assert ids_of(only_a) == [one for one, family in zip(found, parents, strict=True) if family == ["a"]]


@given(
    st.lists(st.lists(TEXTS | st.sampled_from(["a" * 40, "b" * 40]), max_size=3), max_size=20),
    st.sampled_from([1, 3, 16_384]),
)
def test_ids_are_those_of_one_row_after_another(families: list[list[str]], at_once: int) -> None:
    joined = ["\x1f".join([*family, ""]) for family in families]
    expected = [row_id("s", "t", family, joined[:place].count(joined[place])) for place, family in enumerate(families)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_AT_ONCE", at_once)
        assert ids_of(families) == expected


@given(st.lists(st.tuples(st.lists(TEXTS, max_size=2), TEXTS), max_size=20))
def test_a_text_is_a_family_as_a_list_of_it_is(named: list[tuple[list[str], str]]) -> None:
    rows = pl.DataFrame(named, schema={"parents": pl.List(pl.String), "content": pl.String}, orient="row")
    assert row_ids("s", "t", rows, "parents", "content") == ids_of([[*parents, content] for parents, content in named])
    assert row_ids("s", "t", rows, "content") == ids_of([[content] for _, content in named])


@given(st.text(max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_seeds_belong_to_row_and_attempt(row: str, one: int, other: int) -> None:
    assert 0 <= seed(row, one) < 2**63
    assert (seed(row, one) == seed(row, other)) == (one == other)


def test_a_text_that_only_looks_like_json_is_a_text() -> None:
    assert list(strings(["{torn", '{"a": ["b"]}'])) == ["{torn", '{"a": ["b"]}', "b"]

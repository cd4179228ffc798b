"""Side tables with a column of their own that holds ids of a step's rows, as that of duplicates does."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normloom as nl
from normloom.core.errors import ContractError
from normloom.core.fan_out import free
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.planning.reuse import kept_without
from normloom.store.store import Store
from normloom.testing import made

WORDS = tuple("abcdefg")


@nl.step(makes={"of": pl.String, "mark": pl.String}, fan_out=free("a row for each marked word"))
def marked(rows: pl.DataFrame, *, marks: tuple[tuple[str, str], ...]) -> nl.Output:
    told = pl.DataFrame(marks, schema={"word": pl.String, "mark": pl.String}, orient="row")
    found = rows.join(told, on="word", maintain_order="left").select("row_id", "mark", of="row_id")
    return nl.Output(found, attempts=found.height)


@nl.step(
    makes={"word": pl.String, "mark": pl.String, "handed": pl.Int64},
    part_rows=2,
    looks_up=("of",),
    side_reads=(("mark",),),
    fan_out=nl.each(),
)
def told(rows: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:
    found = rows.join(marks.select("of", "mark"), left_on="row_id", right_on="of", how="left", maintain_order="left")
    return found.select("row_id", "word", "mark", handed=pl.lit(marks.height, dtype=pl.Int64))


@nl.step(makes={"word": pl.String, "mark": pl.String}, part_rows=2, looks_up=("nothing",), fan_out=nl.each())
def lost(rows: pl.DataFrame, marks: pl.DataFrame) -> pl.DataFrame:  # noqa: ARG001  # never called
    return rows


def flow(words: tuple[str, ...], marks: dict[str, str]) -> tuple[Stage, Stage]:
    given = nl.table(pl.DataFrame({"word": words}), name="words")
    found = marked(given, marks=tuple(marks.items()))
    return given, told(given, found)


def build(store: Store, words: tuple[str, ...], marks: dict[str, str]) -> Manifest:
    return made("toy", [flow(words, marks)[1]], store)["told"]


def parts_made(table: Manifest) -> int:
    return table.work.parts if table.work else 0


def test_a_part_gets_the_side_rows_that_name_its_rows_and_no_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = build(store, WORDS, {"b": "x", "c": "y", "d": "z"})
    rows = store.scan(first.ref).select("word", "mark", "handed").collect().rows()
    assert rows[:4] == [("a", None, 1), ("b", "x", 1), ("c", "y", 2), ("d", "z", 2)]
    assert {row[1:] for row in rows[4:]} == {(None, 0)}
    assert parts_made(build(store, (*WORDS, "h"), {"b": "x", "c": "y", "d": "z", "h": "x"})) == 1
    assert parts_made(build(store, (*WORDS, "h"), {"b": "x", "c": "other", "d": "z", "h": "x"})) == 1
    assert parts_made(build(store, (*WORDS, "h"), {"c": "other", "d": "z", "f": "x", "h": "x"})) == 2


@settings(max_examples=25)
@given(
    words=st.lists(st.sampled_from("abcdefghij"), min_size=1, unique=True),
    marks=st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from("xyz"), min_size=1),
)
def test_an_increment_gives_what_a_build_from_nothing_gives(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], marks: dict[str, str]
) -> None:
    store, scratch = (Store(tmp_path_factory.mktemp("store")) for _ in range(2))
    build(store, WORDS, {"b": "x", "c": "y", "f": "z"})
    found, wanted = (build(one, tuple(words), marks) for one in (store, scratch))
    columns = ["row_id", "parents", "word", "mark"]  # what a part was handed depends on how the table is cut
    assert store.scan(found.ref).select(columns).collect().equals(scratch.scan(wanted.ref).select(columns).collect())


def test_parts_whose_side_rows_go_are_not_counted_as_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stage, table = flow(WORDS, {"b": "x", "f": "y"})[1], build(store, WORDS, {"b": "x", "f": "y"})
    marks = store.scan(table.sides[0]).collect()
    kept = kept_without(stage, table, {marks.row(by_predicate=pl.col("mark") == "x", named=True)["row_id"]}, store)
    assert kept is not None
    assert (kept.parts, kept.done) == (4, 3)


def test_a_column_that_nobody_has_is_refused(tmp_path: Path) -> None:
    words = flow(WORDS, {"b": "x"})[0]
    with pytest.raises(ContractError, match="looks side rows up by column 'nothing', which it does not read"):
        made("toy", [lost(words, marked(words, marks=(("b", "x"),)))], Store(tmp_path))

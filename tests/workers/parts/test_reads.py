"""What a part reads, and how little of it has to be the same for the part to be taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normloom as nl
from normloom.core.compared import Compared
from normloom.core.errors import ConfigError
from normloom.core.rows.blocks import Blocks
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.testing import made
from normloom.workers.parts import reads

PEOPLE = ("ann", "ben", "cem", "dea", "eli", "fay")


@nl.step(makes={"word": pl.String, "page": pl.Int64})
def words(*, pages: tuple[tuple[str, int], ...]) -> nl.Output:
    rows = pl.DataFrame(pages, schema=["word", "page"], orient="row")
    known = rows.with_columns(content="word", parents=pl.lit([], dtype=pl.List(pl.String)))
    return nl.Output(rows=known, attempts=known.height)


@nl.step(makes={"word": pl.String, "columns": pl.List(pl.String)}, part_rows=2, reads=("word",), fan_out=nl.each())
def seen(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", "word").with_columns(columns=pl.lit(rows.columns, dtype=pl.List(pl.String)))


@nl.step(
    makes={"word": pl.String, "who": pl.String, "city": pl.String, "people": pl.Int64, "cities": pl.Int64},
    part_rows=2,
    looks_up=("who", "home"),
    fan_out=nl.each(),
)
def told(rows: pl.DataFrame, people: pl.DataFrame, homes: pl.DataFrame) -> pl.DataFrame:
    joined = rows.join(people.select("who", "home"), on="who", how="left", maintain_order="left").join(
        homes.select("home", "city"), on="home", how="left", maintain_order="left"
    )
    counts = {"people": pl.lit(people.height, dtype=pl.Int64), "cities": pl.lit(homes.height, dtype=pl.Int64)}
    return joined.select("row_id", "word", "who", "city", **counts)


@nl.step(
    makes={"word": pl.String, "columns": pl.List(pl.String)},
    part_rows=2,
    looks_up=("who", "home"),
    side_reads=(("age",), None),
    fan_out=nl.each(),
)
def met(rows: pl.DataFrame, people: pl.DataFrame, homes: pl.DataFrame) -> pl.DataFrame:
    named = sorted(set(people.columns + homes.columns) - {"row_id", "parents"})
    return rows.select("row_id", "word").with_columns(columns=pl.lit(named, dtype=pl.List(pl.String)))


@nl.step(makes={"who": pl.String, "home": pl.String, "age": pl.Int64, "job": pl.String})
def people(*, told: tuple[tuple[str, str, int, str], ...]) -> nl.Output:
    rows = pl.DataFrame(told, schema=["who", "home", "age", "job"], orient="row")
    known = rows.with_columns(content="who", parents=pl.lit([], dtype=pl.List(pl.String)))
    return nl.Output(rows=known, attempts=known.height)


def table(name: str, **columns: object) -> Stage:
    return nl.table(pl.DataFrame(columns), name=name)


def parts_made(manifest: Manifest) -> int:
    return manifest.work.parts if manifest.work else 0


def test_a_step_is_handed_the_columns_that_it_reads_and_others_may_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = made("toy", [seen(words(pages=(("a", 1), ("b", 2), ("c", 3))))], store)["seen"]
    found = store.scan(first.ref).select("word", "columns").collect()
    assert found.rows() == [("a", ["row_id", "word"]), ("b", ["row_id", "word"]), ("c", ["row_id", "word"])]
    again = made("toy", [seen(words(pages=(("a", 1), ("b", 2), ("c", 4))))], store)["seen"]
    assert (again.key != first.key, parts_made(again), again.content) == (True, 0, first.content)
    other = made("toy", [seen(words(pages=(("a", 1), ("b", 2), ("d", 4))))], store)["seen"]
    assert parts_made(other) == 1


def test_a_step_is_handed_the_columns_of_side_tables_that_it_reads_and_others_may_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = table("rows", word=["a", "b", "c"], who=["ann", "ben", "ann"])
    homes = table("homes", home=["h1", "h2"], city=["Kiel", "Bonn"])

    def built(age: int, job: str) -> Manifest:
        told = people(told=(("ann", "h1", 30, "baker"), ("ben", "h2", age, job)))
        return made("toy", [met(rows, told, homes)], store)["met"]

    first = built(40, "judge")
    assert store.scan(first.ref).collect()["columns"].to_list() == [["age", "city", "home", "who"]] * 3
    other_job, other_age = built(40, "nurse"), built(41, "judge")
    assert (other_job.key != first.key, parts_made(other_job), other_job.content) == (True, 0, first.content)
    assert parts_made(other_age) == 1


@nl.step(
    makes={"word": pl.String, "columns": pl.List(pl.String)},
    part_rows=2,
    compares=Compared(columns=("who", "nobody's")),
    fan_out=nl.each(),
)
def near(rows: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", "word").with_columns(columns=pl.lit(people.columns, dtype=pl.List(pl.String)))


def test_a_step_is_handed_the_columns_of_side_tables_that_it_compares(tmp_path: Path) -> None:
    store = Store(tmp_path)
    people = table("people", who=["ann"], home=["h1"])
    found = made("toy", [near(table("words", word=["a", "b", "c"]), people)], store)["near"]
    assert set(map(tuple, store.scan(found.ref).collect()["columns"])) == {("row_id", "who")}
    assert reads._whole.cache_info().currsize == 0  # the stage is done, so its side tables are not held


def flow(words: list[str], who: list[str], homes: dict[str, str], cities: dict[str, str]) -> list[Stage]:
    people = table("people", who=list(homes), home=list(homes.values()))
    places = table("homes", home=list(cities), city=list(cities.values()))
    return [told(table("words", word=words, who=who), people, places)]


WORDS, WHO = ["a", "b", "c", "d", "e"], ["ann", "ben", "cem", "ann", "dea"]
HOMES = {"ann": "h1", "ben": "h2", "cem": "h1", "dea": "h3"}
CITIES = {"h1": "Kiel", "h2": "Bonn", "h3": "Ulm", "h4": "Jena"}


def test_a_part_gets_the_rows_of_side_tables_that_it_names_or_that_those_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = made("toy", flow(WORDS, WHO, HOMES, CITIES), store)["told"]
    assert store.scan(first.ref).select("who", "city", "people", "cities").collect().rows() == [
        ("ann", "Kiel", 2, 2),
        ("ben", "Bonn", 2, 2),
        ("cem", "Kiel", 2, 1),
        ("ann", "Kiel", 2, 1),
        ("dea", "Ulm", 1, 1),
    ]
    unused = made("toy", flow(WORDS, WHO, {**HOMES, "new": "h4"}, CITIES), store)["told"]
    assert parts_made(unused) == 0
    moved = made("toy", flow(WORDS, WHO, HOMES, {**CITIES, "h2": "Köln"}), store)["told"]
    assert parts_made(moved) == 1


@settings(max_examples=8)
@given(
    who=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=7),
    homes=st.permutations(PEOPLE).flatmap(
        lambda order: st.fixed_dictionaries({name: st.sampled_from(sorted(CITIES)) for name in order})
    ),
    cities=st.fixed_dictionaries({home: st.sampled_from(("Kiel", "Bonn", "Ulm")) for home in CITIES}),
)
def test_whatever_changes_in_rows_and_side_tables_a_build_from_nothing_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, who: list[str], homes: dict[str, str], cities: dict[str, str]
) -> None:
    store, scratch = (Store(tmp_path_factory.mktemp("store")) for _ in range(2))
    made("toy", flow(WORDS, WHO, dict.fromkeys(PEOPLE, "h1"), CITIES), store)
    texts = [f"word {number}" if number % 3 == 0 else WORDS[number % 5] for number in range(len(who))]
    found, wanted = (made("toy", flow(texts, who, homes, cities), one)["told"] for one in (store, scratch))
    columns = ["row_id", "parents", "word", "who", "city"]  # the other two count what a part got, however it is cut
    assert store.scan(found.ref).select(columns).collect().equals(scratch.scan(wanted.ref).select(columns).collect())


def test_records_of_before_there_were_places_hold_and_give_no_wrong_part(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = made("toy", flow(WORDS, WHO, HOMES, CITIES), store)["told"]
    old = [part.model_copy(update={"reads": part.reads.replace("-", "")[:32], "places": ""}) for part in first.parts]
    before = first.model_copy(update={"parts": old}).sealed()
    content = before.model_dump_json(indent=1)
    (store.table_directory(first.ref) / MANIFEST).write_text(content)
    assert not any("places" in part for part in json.loads(content)["parts"])
    assert Manifest.model_validate_json(content).intact
    moved = made("toy", flow(WORDS, WHO, HOMES, {**CITIES, "h2": "Köln"}), store)["told"]
    assert store.scan(moved.ref).select("city").collect()["city"].to_list()[1] == "Köln"
    assert parts_made(moved) == len(moved.parts)


def test_a_side_table_is_cut_in_one_way() -> None:
    both = nl.step(makes={"word": pl.String}, part_rows=2, looks_up=("who",), sides_on="who")(told.function)
    people, homes = table("people", who=["ann"], home=["h1"]), table("homes", home=["h1"])
    with pytest.raises(ConfigError, match="sides_on or looks_up, not both"):
        both(table("words", word=["a"], who=["ann"]), people, homes)


def test_digests_of_inputs_are_remembered_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "_MOST_DIGESTS", 1)
    flow = [seen(table("words", word=[*"abcdef"]))]
    first = made("toy", flow, Store(tmp_path))["seen"]
    assert len({part.reads for part in first.parts}) == 3
    assert len(reads._DIGESTS) == 1


@nl.step(makes={"word": pl.String, "columns": pl.List(pl.String)}, reads=("word",), blocks=True, fan_out=nl.free("all"))
def gathered(rows: Blocks) -> nl.Output:
    made = pl.concat(rows).select("word", parents=pl.concat_list("row_id"), columns=pl.lit([*rows.schema]))
    return nl.Output(rows=made, attempts=rows.height)


def test_a_step_may_look_at_its_rows_in_blocks(tmp_path: Path) -> None:
    store, count = Store(tmp_path), reads.BLOCK + 5
    words = nl.table(pl.select(word=pl.format("{}", pl.int_range(count)), page=pl.lit(1)), name="words")
    manifest = made("toy", [gathered(words)], store)["gathered"]
    rows = store.scan(manifest.ref).collect()
    assert rows["word"].to_list() == [str(number) for number in range(count)]
    assert rows["columns"].unique().to_list() == [["row_id", "word"]]
    empty = nl.table(pl.DataFrame(schema={"word": pl.String}), name="words")
    assert made("toy", [gathered(empty)], store)["gathered"].count("rows") == 0


@pytest.mark.parametrize("options", [{"part_rows": 2}, {"sides_on": "x"}, {"fan_out": nl.each()}])
def test_a_step_that_reads_blocks_makes_one_part_of_all_rows(options: dict[str, Any]) -> None:
    step = nl.step(makes={"word": pl.String}, name="gathered", blocks=True, **options)(gathered.function)
    with pytest.raises(ConfigError, match="reads its rows in blocks: leave out"):
        step(table("words", word=["a"]))

"""`--only 'STAGE where CONDITION'`: parts that read chosen rows are made, the others are left for another time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import PartlyMadeError, UsageError
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.steps.selection import Selection
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.testing.toy import Words, runner, words_stage

asked: list[list[str]] = []


@step(makes={"word": pl.String, "loud": pl.String}, part_rows=2)
def shout(rows: pl.DataFrame) -> Output:
    asked.append(rows["word"].to_list())
    return Output(rows=rows.select("row_id", "word", loud=pl.col("word").str.to_uppercase()))


WORDS: Sequence[str] = ("a", "b", "c", "d", "e")


def built(store: Store, where: str | None, stage: Stage | None = None) -> Manifest:
    words = words_stage(*WORDS)
    loom = runner(store)
    first, _ = loom.run(words, [], [])
    asked.clear()
    manifest, _ = loom.run(stage or shout(words), [first.ref], [], where=where)
    return manifest


def test_only_parts_with_such_rows_are_made_and_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(PartlyMadeError, match="1 of 3 parts are built, 1 of them new; to build the other 2"):
        built(store, "word = 'd'")
    assert asked == [["c", "d"]]
    with pytest.raises(PartlyMadeError, match="1 of 3 parts are built, 0 of them new; to build the other 2"):
        built(store, 'word = "d"')  # a text in the quotes of names
    assert asked == []
    with pytest.raises(PartlyMadeError, match="2 of 3 parts"):
        built(store, '"word" in (\'c\', "e")')
    assert asked == [["e"]]
    manifest = built(store, None)
    assert asked == [["a", "b"]]
    assert store.scan(manifest.ref).collect()["loud"].to_list() == ["A", "B", "C", "D", "E"]


def test_the_last_parts_publish_the_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = built(store, "word >= 'a'")
    assert manifest.count("rows") == 5


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("colour = 'red'", "colour.*columns: .*word"),
        ("word = 'z'", "none of 5 rows match"),
        ("word = ", "syntax"),
    ],
)
def test_a_condition_that_chooses_nothing_is_refused(tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(Store(tmp_path), where)
    assert asked == []


def test_a_stage_that_reads_nothing_has_no_rows_to_choose(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="reads no table"):
        runner(Store(tmp_path)).run(words_stage("a"), [], [], where="word = 'a'")


def test_a_selection_with_a_condition() -> None:
    words = words_stage("a")
    selection = Selection(only=("shout where word = 'a' and 1 = 1", "words"))
    assert selection.chosen([words, shout(words)]) == {"shout", "words"}
    assert selection.where("shout") == "word = 'a' and 1 = 1"
    assert selection.where("words") is None
    assert Selection(only=("shout where word = 'a'",)).chosen([words, shout(words)]) == {"words", "shout"}
    assert Selection(only=("shout",)).chosen([words, shout(words)]) == {"shout"}
    with pytest.raises(UsageError, match="unknown stage 'shoot'; did you mean shout"):
        Selection(only=("shoot where a = 1",)).chosen([words, shout(words)])
    assert isinstance(words.arguments, Words)

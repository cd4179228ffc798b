from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from normloom.core.contract import Contract
from normloom.core.errors import ContractError
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.planning.keys import key_fields, stage_key
from normloom.store.store import Store
from normloom.testing.toy import Echo, runner, words_stage

COUNTS = Contract(columns={"word": pl.String(), "here": pl.Int64(), "beside": pl.Int64()})
OWNED = Contract(columns={"word": pl.String(), "owner": pl.String()}, nullable=frozenset({"owner"}))


def count_own(rows: pl.DataFrame, arguments: Echo, beside: pl.DataFrame) -> Output:  # noqa: ARG001  # as stages are called
    """Count for each word the rows beside it that are its own, and all that this part was given."""
    own = beside.group_by(owner="owner").len("here")
    counted = rows.join(own, left_on="row_id", right_on="owner", how="left").with_columns(
        pl.col("here").fill_null(0).cast(pl.Int64), beside=pl.lit(beside.height, dtype=pl.Int64)
    )
    return Output(rows=counted.select("row_id", "word", "here", "beside"))


def own_twice(rows: pl.DataFrame, arguments: Echo) -> Output:
    """Make of each word as many rows as it has letters, owned by it.

    Those of the word to `drop` are nobody's, the word to put `aside` gets none.
    """
    owner = pl.when(pl.col("word") != (arguments.drop or "")).then("row_id")
    made = (
        rows.filter(pl.col("word") != (arguments.aside or ""))
        .with_columns(owner=owner, letter=pl.col("word").str.split(""))
        .explode("letter")
    )
    return Output(rows=made.select("row_id", "word", "owner"), attempts=made.height)


def stages(
    *words: str,
    orphan: str | None = None,
    childless: str | None = None,
    on: str | None = "owner",
    side_part_rows: int | None = None,
) -> list[Stage]:
    first = words_stage(*words)
    letters = Stage(
        name="letters",
        function=own_twice,
        arguments=Echo(drop=orphan, aside=childless),
        contract=OWNED,
        inputs=(first,),
        part_rows=side_part_rows,
    )
    counts = Stage(
        name="counts",
        function=count_own,
        arguments=Echo(),
        contract=COUNTS,
        inputs=(first,),
        sides=(letters,),
        sides_on=on,
        part_rows=2,
    )
    return [first, letters, counts]


def counted(store: Store, first: Stage, letters: Stage, counts: Stage) -> Manifest:
    loom = runner(store)
    words = loom.run(first, [], [])[0].ref
    return loom.run(counts, [words], [loom.run(letters, [words], [])[0].ref])[0]


def test_a_part_gets_the_side_rows_of_its_own_input_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = counted(store, *stages("a", "bee", "to", "five"))
    assert len(manifest.parts) == 2
    assert store.scan(manifest.ref).select("word", "here", "beside").collect().rows() == [
        ("a", 1, 4),
        ("bee", 3, 4),
        ("to", 2, 6),
        ("five", 4, 6),
    ]


@pytest.mark.parametrize("side_part_rows", [None, 1, 3])
def test_side_rows_are_found_in_whatever_files_they_lie(tmp_path: Path, side_part_rows: int | None) -> None:
    store = Store(tmp_path)
    manifest = counted(store, *stages("a", "bee", "to", "five", "six", childless="six", side_part_rows=side_part_rows))
    assert store.scan(manifest.ref).select("word", "here", "beside").collect().rows() == [
        ("a", 1, 4),
        ("bee", 3, 4),
        ("to", 2, 6),
        ("five", 4, 6),
        ("six", 0, 0),
    ]


def first_of_own(rows: pl.DataFrame, arguments: Echo, beside: pl.DataFrame) -> Output:
    """Keep each word that has a row beside it; with `drop` it comes through the first of them."""
    own = beside.group_by(row_id="owner").agg(through=pl.col("row_id").first())
    kept = rows.select("row_id", "word").join(own, on="row_id", maintain_order="left")
    return Output(rows=kept if arguments.drop else kept.drop("through"), attempts=kept.height)


def test_a_row_that_came_through_a_side_row_has_it_for_a_parent_and_keeps_its_id(tmp_path: Path) -> None:
    first, letters, counts = stages("a", "bee", "six", childless="six")
    kept = replace(counts, function=first_of_own, contract=Contract(columns={"word": pl.String()}))
    through = replace(kept, arguments=Echo(drop="yes"))
    store = Store(tmp_path)
    made, other = (counted(store, first, letters, stage) for stage in (kept, through))
    [words], [beside] = made.inputs, made.sides
    rows, through_rows, read, owned = (store.scan(ref).collect() for ref in (made.ref, other.ref, words, beside))
    assert rows["word"].to_list() == ["a", "bee"]
    assert rows.drop("parents").equals(through_rows.drop("parents"))
    assert rows["parents"].explode().to_list() == read["row_id"].to_list()[:2]
    owner = dict(owned.select("row_id", "owner").iter_rows())
    assert [owner[parent] for parent in through_rows["parents"].explode()] == rows["parents"].explode().to_list()


def test_without_a_column_every_part_gets_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = counted(store, *stages("a", "bee", "to", on=None))
    assert store.scan(manifest.ref).select("here", "beside").collect().rows() == [(1, 6), (3, 6), (2, 6)]


def test_a_side_row_that_is_nobody_s_fails_the_stage_instead_of_vanishing(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"stage 'counts': row \w{32} .* belongs to row None by column 'owner'"):
        counted(Store(tmp_path), *stages("a", "bee", "to", orphan="bee"))


def test_the_column_is_part_of_the_key() -> None:
    keys = [stage_key(key_fields("toy", stages("a", on=on)[2], inputs=["x"], sides=["y"])) for on in ("owner", None)]
    assert keys[0] != keys[1]

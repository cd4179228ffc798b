from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from normloom.core.contract import Contract
from normloom.core.errors import ContractError
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest
from normloom.planning.keys import key_fields, stage_key
from normloom.store.store import Store
from normloom.testing.toy import Echo, runner, words_stage
from normloom.workers.job import PartJob
from normloom.workers.reads import rows_of, with_own_inputs, with_own_sides

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


def written(path: Path, **columns: list[str]) -> tuple[Path, int]:
    frame = pl.DataFrame(columns, schema_overrides=dict.fromkeys(columns, pl.String))
    frame.write_parquet(path)
    return path, frame.height


def parts(folder: Path, *bounds: tuple[int, int], **fields: Any) -> list[PartJob]:
    whole = PartJob(
        system="toy",
        stage="counts",
        function=count_own,
        arguments=Echo(),
        contract=COUNTS,
        directory=folder,
        writer="w",
        index=0,
        start=0,
        stop=0,
        **fields,
    )
    return [replace(whole, index=index, start=start, stop=stop) for index, (start, stop) in enumerate(bounds)]


def test_a_part_is_given_the_files_that_hold_rows_of_its_own(tmp_path: Path) -> None:
    inputs = (written(tmp_path / "in", row_id=["a", "b", "c", "d", "e"]),)
    one = written(tmp_path / "one", row_id=["1", "2"], owner=["a", "b"])
    two = written(tmp_path / "two", row_id=["3", "4"], owner=["d", "b"])
    cut = parts(tmp_path, (0, 2), (2, 4), (4, 5), inputs=inputs, sides=((one, two),), sides_on="owner")
    assert [part.sides for part in with_own_sides(cut)] == [((one, two),), ((two,),), ((one,),)]


def test_a_part_is_given_the_files_of_the_rows_that_it_reads(tmp_path: Path) -> None:
    rows = ["abc", "", "d", "ef"]
    one, none, two, three = (written(tmp_path / str(n), row_id=list(some)) for n, some in enumerate(rows))
    cut = with_own_inputs(parts(tmp_path, (0, 2), (2, 3), (3, 5), (5, 6), inputs=(one, none, two, three), sides=()))
    assert [part.inputs for part in cut] == [(one,), (one,), (two, three), (three,)]
    assert ["".join(rows_of(part)["row_id"]) for part in cut] == ["ab", "c", "de", "f"]
    [empty] = with_own_inputs(parts(tmp_path, (0, 0), inputs=(none,), sides=()))
    assert rows_of(empty).schema == {"row_id": pl.String}


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

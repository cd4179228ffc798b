"""Which files a part is given, of the rows that it reads and of side tables, and what is known without reading them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normloom as nl
from normloom.core.contract import Contract
from normloom.core.errors import ContractError
from normloom.core.stage import NoArguments, Output, Stage
from normloom.core.table import KINDS, PartRecord
from normloom.store.store import Store
from normloom.testing import made
from normloom.workers.parts import places
from normloom.workers.parts.job import PartJob
from normloom.workers.parts.places import with_places
from normloom.workers.parts.reads import rows_digest, rows_of, sides_digest

NOTHING = Contract(columns={})


def written(path: Path, **columns: list[str]) -> tuple[Path, int]:
    frame = pl.DataFrame(columns, schema_overrides=dict.fromkeys(columns, pl.String))
    frame.write_parquet(path)
    return path, frame.height


def unread(*tables: object) -> Output:
    raise NotImplementedError


def parts(folder: Path, *bounds: tuple[int, int], **fields: Any) -> list[PartJob]:
    whole = PartJob(
        system="toy",
        stage="counts",
        function=unread,
        arguments=NoArguments(),
        contract=NOTHING,
        directory=folder,
        writer="w",
        index=0,
        start=0,
        stop=0,
        reusable=True,
        **fields,
    )
    return [replace(whole, index=index, start=start, stop=stop) for index, (start, stop) in enumerate(bounds)]


def placed(jobs: list[PartJob], earlier: list[PartJob] | None = None) -> list[PartJob]:
    """Return the parts with their places; the names of files are their checksums."""
    files = [path for job in jobs for files in (job.inputs or (), *job.sides) for path, _ in files]
    checksums = {path: hashlib.sha256(path.name.encode()).hexdigest() for path in files}
    return with_places(jobs, checksums, [record(job) for job in earlier or ()])


def record(job: PartJob) -> PartRecord:
    return PartRecord(
        index=job.index,
        start=job.start,
        stop=job.stop,
        files={},
        attempts=0,
        dropped_by={},
        quarantined_by={},
        tokens_in=0,
        tokens_out=0,
        seconds=0,
        metrics={},
        reads=rows_digest(job),
        places=job.places,
    )


def names(jobs: list[PartJob]) -> list[list[list[str]]]:
    return [[[path.name for path, _ in files] for files in job.sides] for job in jobs]


def test_a_part_is_given_the_files_of_the_rows_that_it_reads(tmp_path: Path) -> None:
    rows = ["abc", "", "d", "ef"]
    one, none, two, three = (written(tmp_path / str(n), row_id=list(some)) for n, some in enumerate(rows))
    cut = placed(parts(tmp_path, (0, 2), (2, 3), (3, 5), (5, 6), inputs=(one, none, two, three), sides=()))
    assert [part.inputs for part in cut] == [(one,), (one,), (two, three), (three,)]
    assert ["".join(rows_of(part)["row_id"]) for part in cut] == ["ab", "c", "de", "f"]
    [empty] = placed(parts(tmp_path, (0, 0), inputs=(none,), sides=()))
    assert rows_of(empty).schema == {"row_id": pl.String}


def test_a_part_is_given_the_files_that_hold_rows_of_its_own(tmp_path: Path) -> None:
    inputs = (written(tmp_path / "in", row_id=["a", "b", "c", "d", "e"]),)
    one = written(tmp_path / "one", row_id=["1", "2"], owner=["a", "b"])
    two = written(tmp_path / "two", row_id=["3", "4"], owner=["d", "b"])
    cut = placed(parts(tmp_path, (0, 2), (2, 4), (4, 5), inputs=inputs, sides=((one, two),), sides_on="owner"))
    assert names(cut) == [[["one", "two"]], [["two"]], [["one"]]]


def test_files_whose_rows_belong_to_parts_that_stayed_are_not_read_again(tmp_path: Path) -> None:
    here, there = written(tmp_path / "in", row_id=["a", "b"]), written(tmp_path / "further", row_id=["c", "d"])
    one = written(tmp_path / "one", row_id=["1", "2"], owner=["a", "b"])
    two = written(tmp_path / "two", row_id=["3", "4"], owner=["c", "d"])
    first = placed(parts(tmp_path, (0, 2), (2, 4), inputs=(here, there), sides=((one, two),), sides_on="owner"))
    more = written(tmp_path / "more", row_id=["5"], owner=["e"])
    other = written(tmp_path / "other", row_id=["c", "e"])
    one[0].unlink()
    grown = parts(tmp_path, (0, 2), (2, 4), inputs=(here, other), sides=((one, two, more),), sides_on="owner")
    with pytest.raises(ContractError, match="row 4 of a side table belongs to row d"):
        placed(grown, first)
    written(tmp_path / "other", row_id=["d", "c"])
    written(tmp_path / "more", row_id=["5"], owner=["d"])
    assert names(placed(grown, first)) == [[["one"]], [["two", "more"]]]
    written(tmp_path / "more", row_id=["5"], owner=["a"])  # of a part that stayed
    assert names(placed(grown, first)) == [[["one", "more"]], [["two"]]]
    whole = written(tmp_path / "whole", row_id=["a", "b", "d", "c"])  # rows are in another file, and the same
    assert names(placed([replace(job, inputs=(whole,)) for job in grown], first)) == [[["one", "more"]], [["two"]]]


@pytest.mark.parametrize("unknown", ["", "0" * 32, f"{'0' * 32}-{'1' * 32}"])
def test_nothing_is_known_of_a_table_with_a_part_that_does_not_list_its_files(tmp_path: Path, unknown: str) -> None:
    inputs = (written(tmp_path / "in", row_id=["a", "b"]),)
    one = written(tmp_path / "one", row_id=["1", "2"], owner=["a", "b"])
    jobs = parts(tmp_path, (0, 1), (1, 2), inputs=inputs, sides=((one,),), sides_on="owner")
    first = placed(jobs)
    older = [first[0], replace(first[1], places=unknown)]
    assert names(placed(jobs, older)) == [[["one"]], [["one"]]]


@nl.step(makes={"word": pl.String})
def words(*, texts: tuple[str, ...]) -> nl.Output:
    rows = pl.DataFrame({"word": texts, "content": texts}, schema={"word": pl.String, "content": pl.String})
    return nl.Output(rows=rows.with_columns(parents=pl.lit([], dtype=pl.List(pl.String))), attempts=len(texts))


@nl.step(makes={"word": pl.String}, part_rows=2, fan_out=nl.each())
def handed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("row_id", "word")


@nl.step(makes={"owner": pl.String, "letter": pl.String}, part_rows=3, fan_out=nl.free("a row for each letter"))
def letters(rows: pl.DataFrame) -> nl.Output:
    told = rows.select("row_id", owner="row_id", letter=pl.col("word").str.split("")).explode("letter")
    told = told.filter(pl.col("letter").is_not_null())
    return nl.Output(rows=told, attempts=told.height)


@nl.step(makes={"word": pl.String, "spelt": pl.String}, part_rows=3, sides_on="owner", fan_out=nl.each())
def spelt(rows: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    joined = own.group_by(row_id="owner", maintain_order=True).agg(spelt=pl.col("letter").str.join(""))
    there = rows.select("row_id", "word").join(joined, on="row_id", how="left", maintain_order="left")
    return there.with_columns(pl.col("spelt").fill_null(""))


def flow(texts: list[str]) -> list[Stage]:
    rows = handed(words(texts=tuple(texts)))
    return [spelt(rows, letters(rows))]


SOME = st.lists(st.sampled_from(["a", "bee", "sea", "eye", "tea", "you", "why", "ex"]), max_size=12)


@settings(max_examples=25, deadline=None)
@given(st.lists(SOME, min_size=2, max_size=4))
def test_whatever_comes_and_goes_each_part_has_all_rows_of_its_own(edits: list[list[str]]) -> None:
    with TemporaryDirectory() as kept:
        for texts in edits:
            store = Store(kept)
            found = made("toy", flow(texts), store)["spelt"]
            rows = store.scan(found.ref).collect()
            assert rows["word"].to_list() == texts
            assert rows["spelt"].to_list() == texts
    assert found.count("rows") == sum(found.count(kind) for kind in KINDS)


def test_rows_that_are_looked_at_a_few_files_at_a_time_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_AT_ONCE", 1)
    store = Store(tmp_path)
    for texts in (["a", "bee", "sea", "eye"], ["bee", "sea", "why", "eye"]):
        found = made("toy", flow(texts), store)["spelt"]
        assert store.scan(found.ref).collect()["spelt"].to_list() == texts


def test_a_part_whose_side_tables_are_not_cut_has_no_digest_of_them(tmp_path: Path) -> None:
    [job] = parts(tmp_path, (0, 1), inputs=(), sides=())
    assert sides_digest(job) == ""

"""Prompts of all axes: what the real sets hold, what our own do, and no prompt on two sides of the split."""

import json
from pathlib import Path

import polars as pl
import pytest

from normloom.core.errors import ConfigError, SourceError
from normloom.flows.alignx.axes import AxisSource, axis_stage
from normloom.readers import locate
from normloom.store.store import Store
from normloom.tasks.tradeoff.axis_rows import SplittingAxes, axis_rows, content_of, published_axes
from normloom.tasks.tradeoff.axis_sets import ReadAxisSet, read_axis_set
from normloom.testing.inline import made

HH = "hh_harmless"


def read(folder: Path, name: str) -> pl.DataFrame:
    return read_axis_set.function(ReadAxisSet(), source=locate(folder / name), layout=name).rows


def length(replies: pl.Series) -> pl.Series:
    return replies.list.first().str.len_chars().fill_null(0).cast(pl.Int64)


def test_truthfulqa_is_read_whole(shared_data: Path) -> None:
    rows = read(shared_data, "truthfulqa_full")
    assert rows.height == 817
    assert rows["reference"].list.len().sum() == 2_589
    assert rows["bad_reference"].list.len().sum() == 3_298


def test_hh_harmless_is_read_whole(shared_data: Path) -> None:
    rows = read(shared_data, HH)
    assert rows.height == 2_273
    longer = length(rows["reference"]) - length(rows["bad_reference"])
    assert ((longer > 0).sum(), (longer < 0).sum()) == (1_005, 1_257)
    assert rows["history"].drop_nulls().list.eval(pl.element().struct.field("role")).list.first().is_in(["user"]).all()


def test_a_folder_of_the_real_sets_becomes_rows_without_a_leak(shared_data: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifests = made("alignx", [axis_stage(AxisSource(path=shared_data), SplittingAxes(limit=200))], store)
    rows = store.scan(manifests["axis_rows"].ref).collect()
    assert dict(rows.group_by("axis").len().iter_rows()) == {"helpful": 200, "harmless": 200, "honest": 200}
    assert set(rows["origin"]) == {
        "instruction_seed_tasks",
        "alpaca_eval_judged",
        HH,
        "beavertails_sample",
        "truthfulqa_full",
        "honeset",
    }
    contents = pl.Series([content_of(row) for row in rows.iter_rows(named=True)])
    sides = rows.with_columns(content=contents).group_by("content").agg(pl.col("split").n_unique())
    assert (sides["split"] == 1).all()
    assert manifests["axis_rows"].count("dropped") == 175 + 805 + 2_273 + 137 + 817 + 929 - 600


def test_our_own_rows_have_every_axis_in_every_split(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifests = made("alignx", [axis_stage(AxisSource(), SplittingAxes())], store)
    rows = store.scan(manifests["axis_rows"].ref).collect()
    assert rows.select("axis", "split").unique().height == 9
    assert rows.filter(split="test").group_by("axis").len()["len"].to_list() == [7, 7, 7]
    assert all(rows["reference"].to_list())
    assert all(rows["bad_reference"].to_list())


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    records = [
        {"axis": axis, "prompt": f"{prompt} number {number}?", "reference": "yes", "bad_reference": ["no", ""]}
        for axis in ("kind", "brief")
        for number in range(40)
        for prompt in ("Is it", "IS  it")
    ]
    records += [{"axis": "", "prompt": "whose?"}, {"axis": "kind", "prompt": " "}, records[0]]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_any_axes_of_a_file_of_ones_own(own: Path) -> None:
    source = AxisSource(path=own)
    ((layout, located),) = source.sets().items()
    read = read_axis_set.function(ReadAxisSet(), source=located, layout=layout)
    assert sorted(read.quarantined["rule"]) == ["empty", "missing_axis"]
    assert read.dropped["reason"].to_list() == ["repeated"]
    assert read.attempts == read.rows.height + 3
    assert read.rows["bad_reference"].list.len().to_list() == [1] * 160
    told = read.rows.with_columns(row_id=pl.int_range(pl.len()).cast(pl.String))
    split = axis_rows.function(told, SplittingAxes(limit=60)).rows
    contents = pl.Series([content_of(row) for row in split.iter_rows(named=True)])
    sides = split.with_columns(content=contents).group_by("content").agg(pl.col("split").n_unique(), pl.len())
    assert (sides["split"] == 1).all()
    assert (sides["len"] > 1).any()  # spelled in two ways, on two axes: on one side
    assert split.group_by("axis").len()["len"].to_list() == [60, 60]


def test_a_context_without_turns_is_a_prompt_alone(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("context,chosen,rejected\nWhy?,So.,No.\n")
    rows = read_axis_set.function(ReadAxisSet(), source=locate(tmp_path / "pairs.csv"), layout=HH).rows
    assert rows.select("history", "prompt", "reference").rows() == [(None, "Why?", ["So."])]


def test_an_axis_without_test_prompts_is_refused(own: Path) -> None:
    rows = read_axis_set.function(ReadAxisSet(), source=locate(own), layout="axes").rows
    few = rows.head(1).with_columns(row_id=pl.lit("a"))
    with pytest.raises(SourceError, match=r"axis 'kind': none of its 1 prompts is in the split"):
        axis_rows.function(few, SplittingAxes())


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="its columns are those of no known set; known sets: instruction_seed_tasks"):
        AxisSource(path=tmp_path / "x.csv").sets()


def test_dimensions_of_a_published_table_become_axes() -> None:
    label = [{"label": "safety/weapons", "probability": 0.9}]
    rows = pl.DataFrame(
        [
            {"row_id": "a", "response": "no", "alignment": "aligned", "safety": label, "value": []},
            {"row_id": "b", "response": "yes", "alignment": "misaligned", "safety": label, "value": label},
        ]
    ).with_columns(prompt_id=pl.lit("p"), prompt=pl.lit("Should I?"), split=pl.lit("validation"))
    made_of = published_axes.function(rows, dimensions=("safety", "value")).rows
    assert made_of.select("axis", "reference", "bad_reference", "given_split", "parents").rows() == [
        ("safety", ["no"], ["yes"], "dev", ["a", "b"]),
        ("value", [], ["yes"], "dev", ["b"]),
    ]
    with pytest.raises(SourceError, match="no column 'culture'"):
        published_axes.function(rows, dimensions=("culture",))

"""What files of each format may hold that cannot be read, or only with a note."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import datasets
import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from normloom.core.errors import SourceError
from normloom.readers import ReadOptions, as_text, locate, read_source


def refusal(path: Path | str, **options: object) -> str:
    with pytest.raises(SourceError) as caught:
        read_source(locate(path, ReadOptions.model_validate(options)), text_column="prompt")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"prompt": "a"}] x', "unexpected text after the JSON value"),
        ('[{"prompt": "a"', "Expecting ',' delimiter"),
        ('[{"prompt": "a"} {"prompt": "b"}]', "expected ,, found {"),
        ('{\n"data": {"rows": []}}', "holds an object: expected a JSON array of objects"),
        ('{\n"rows": [], "more": []}', "set source.field to one of its fields: rows, more"),
        ('[{"prompt": "a", "prompt": "b"}]', "the name 'prompt' occurs twice in one object"),
        ('[{"prompt": 1e999}]', "1e999 is too large for 64 bits"),
    ],
)
def test_text_that_is_no_json_array(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [1]}', "holds a list in place of the object of source.field='data.rows'"),
        ('{"x": 1, "x": 2, "data": {}}', "the name 'x' occurs twice in one object"),
        ('{"data": {"lines": 1}}', "has no field 'rows' of source.field='data.rows'; its fields are 'lines'"),
        ('{"data": {}}', "its fields are none"),
    ],
)
def test_a_field_that_is_not_there(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert message in refusal(path, field="data.rows")


def test_values_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"prompt": "x" * 3_000_000}, {"prompt": "short"}]
    path.write_text(json.dumps({"before": 1, "data": rows, "after": 2}))
    found = read_source(locate(path, ReadOptions(field="data")), text_column="prompt").rows
    assert found["text"].to_list() == [row["prompt"] for row in rows]
    begun = '{"before": "'
    pad = (1 << 20) - len(begun) - len('", "number": 12')  # what is read at once ends within the number
    path.write_text(f'{begun}{"x" * pad}", "number": 123, "data": [{{"prompt": "a"}}]}}')
    assert read_source(locate(path, ReadOptions(field="data")), text_column="prompt").records == 1


def test_the_first_sheet_of_a_workbook_is_read_as_excel_shows_it(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["prompt", "sure", "share", "day"])
    book.active.append(["a", True, 2.0, date(2026, 1, 2)])
    book.active.append([])
    book.active.append(["b", False, 2.5])
    book.create_sheet("other").append(["prompt"])
    book.save(tmp_path / "a.xlsx")
    source = read_source(tmp_path / "a.xlsx", text_column="prompt", keep="all")
    assert source.rows.select("text", "sure", "share", "day").rows() == [
        ("a", "true", "2", "2026-01-02"),
        ("b", "false", "2.5", ""),
    ]
    assert any("sheet 'Sheet' of a.xlsx is read, not 'other'" in note for note in source.found)
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    assert "empty.xlsx" in refusal(tmp_path / "empty.xlsx")
    (tmp_path / "bad.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    assert "is damaged or not an Excel workbook" in refusal(tmp_path / "bad.xlsx")


def test_saved_data_sets_that_are_not_whole(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict({"prompt": ["a", "b", "c"]}, split="train")
    whole = tmp_path / "whole"
    made.save_to_disk(whole)
    assert refusal(whole, split="dev").endswith("has no split 'dev'; it is train")
    chosen = shutil.copytree(whole, tmp_path / "chosen") / "state.json"
    chosen.write_text(json.dumps({**json.loads(chosen.read_text()), "_indices_data_files": [{"filename": "i.arrow"}]}))
    assert "is a selection of another table" in refusal(chosen.parent)
    bare = shutil.copytree(whole, tmp_path / "bare")
    next(bare.glob("*.arrow")).unlink()
    assert "lacks its file data-00000-of-00001.arrow" in refusal(bare)
    (whole / "state.json").write_text("{")
    assert "cannot be read as JSON: save the data set again" in refusal(whole)


def test_a_pattern_that_matches_folders_only(tmp_path: Path) -> None:
    (tmp_path / "a.parts").mkdir()
    assert "a.parts): name the files in them" in refusal(tmp_path / "*.parts")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"encoding": "utf-9"}, "unknown encoding 'utf-9'"),
        ({"delimiter": "\n"}, "cannot separate fields"),
        ({"limit": 3, "sample": 4}, "a sample of 4 cannot be drawn from the first 3 records"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ReadOptions.model_validate(setting)
    assert ReadOptions(encoding="latin-1", limit=4, sample=3).encoding == "latin-1"


def test_more_values_than_a_chunk_holds_and_one_of_another_kind_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values: list[object] = [*range(20_001), "last"]
    path.write_text("".join(json.dumps({"prompt": "a", "value": value}) + "\n" for value in values))
    rows = read_source(path, text_column="prompt", keep=["value"]).rows
    assert rows["value"].to_list() == [json.dumps(value) for value in values]


def test_columns_as_text() -> None:
    assert as_text(pl.Series([1, None, 2])).to_list() == ["1", None, "2"]
    assert as_text(pl.Series([True, False])).to_list() == ["true", "false"]
    assert as_text(pl.Series([["ä"], None])).to_list() == ['["ä"]', None]
    assert as_text(pl.Series([{"a": 1}])).to_list() == ['{"a": 1}']
    assert as_text(pl.Series([date(2026, 1, 2)])).to_list() == ["2026-01-02"]
    assert as_text(pl.Series(["text"])).to_list() == ["text"]


@pytest.mark.parametrize(
    ("line", "western"),
    [
        ("caf\u00e9, \u00ab\u00e9t\u00e9\u00bb \u2013 l\u2019\u00e9cole".encode("cp1252"), True),
        (b"no cp1252 \x81 at all \xe9", False),
        (b"pun\xa3ctuation within a word", False),
    ],
)
def test_bytes_that_are_not_utf8_are_cp1252_only_if_they_read_as_words(
    tmp_path: Path, line: bytes, western: bool
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt\n" + line.replace(b",", b"") + b"\n")
    if western:
        assert read_source(path, text_column="prompt").rows["text"].to_list() == [
            line.replace(b",", b"").decode("cp1252")
        ]
    else:
        assert "its only record cannot be used" in refusal(path)


def test_values_of_a_type_that_polars_lacks_are_json(tmp_path: Path) -> None:
    spans = pa.array([pa.MonthDayNano([1, 2, 3]), None], type=pa.month_day_nano_interval())
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema([("prompt", pa.string()), ("span", spans.type)])) as file:
        file.write(pa.record_batch([pa.array(["a", "b"]), spans], names=["prompt", "span"]))
    rows = read_source(tmp_path / "a.arrow", text_column="prompt", keep="all").rows
    assert rows["span"].to_list() == ["[1, 2, 3]", None]


def test_a_file_of_classes_without_names_only(tmp_path: Path) -> None:
    told = {"info": {"features": {"harm": {"names": ["none"], "_type": "ClassLabel"}}}}
    table = pa.table({"prompt": ["a", "b"], "harm": [7, 8]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"none of its 2 records can be used \(unknown_class; record 1: column 'harm' holds class 7"
    ):
        read_source(tmp_path / "a.parquet", text_column="prompt", keep=["harm"])


def test_classes_of_a_list_as_data_sets_wrote_them_before(tmp_path: Path) -> None:
    told = {"info": {"features": {"harm": [{"names": ["none", "some"], "_type": "ClassLabel"}]}}}
    table = pa.table({"prompt": ["a", "b"], "harm": [[0, 1], []]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "a.parquet")
    rows = read_source(tmp_path / "a.parquet", text_column="prompt", keep=["harm"]).rows
    assert rows["harm"].to_list() == [["none", "some"], []]


@contextmanager
def somebody_else() -> Iterator[None]:
    """Let permissions count, which they do not for root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(54321)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_or_folder_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as place:
        file, *folders = (Path(place) / name for name in ("a.csv", "no list", "nothing"))
        file.write_text("prompt\nhi\n")
        Path(place).chmod(0o755)
        file.chmod(0)
        for folder, mode in zip(folders, (0o311, 0), strict=True):
            folder.mkdir()
            folder.chmod(mode)
        with somebody_else():
            for path in (file, *folders):
                assert refusal(path) == f"{path} may not be read by this user: change its permissions"

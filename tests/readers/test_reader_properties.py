"""Hostile tables, written in every format by other libraries and read back: no record or value changes unnoticed."""

import bz2
import csv
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normloom.readers import read_source

Table = list[dict[str, Any]]
NAMES = ("id", "note", "text", "meta.focus", "größe")
HOSTILE = st.sampled_from(
    [
        *('"', '""', 'a"b', '"open', "a,b", "a;b", "a\tb", "line\nbreak", "line\r\nbreak", "\u2028", "\u0085x", "'"),
        *("=1+1", "NULL", "nan", "1.0", "1", "007", "true", "[1]", '{"a": 1}', "\ufeffmark", "\x00nul", " padded "),
        *("Ã©", "é", "שלום", "👩‍👧"),
    ]
)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
TEXTS = HOSTILE | PLAIN
NUMBERS = st.integers() | st.sampled_from([0, 1, -1, 2**53 + 1, -(2**63), 2**63 - 1])
ROWS = st.lists(st.fixed_dictionaries({"prompt": TEXTS, **dict.fromkeys(NAMES, TEXTS)}), min_size=1, max_size=8)
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
JSON_ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXTS}, optional=dict.fromkeys(NAMES, NESTED)), min_size=1, max_size=8
)
LINES = ["a,b", '"a",b', '"a"x,b', '"a\nb",c', "a", "a,b,c", "", '"a""b",c', 'a"b,c']
QUICK = settings(max_examples=20)


def as_csv(delimiter: str, opened: Callable[..., Any] = open) -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(table)

    return write


def as_lines(path: Path, table: Table) -> None:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8", newline="\n"
    )


def as_array(path: Path, table: Table) -> None:
    path.write_text(json.dumps(table, indent=1), encoding="utf-8")


def as_feather(path: Path, table: Table) -> None:
    pyarrow.feather.write_feather(pa.Table.from_pylist(table), str(path))


def as_stream(path: Path, table: Table) -> None:
    made = pa.Table.from_pylist(table)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as stream:
        stream.write_table(made, max_chunksize=3)


def as_parquet(kind: pa.DataType) -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        made = pa.Table.from_pylist(table, schema=pa.schema([(name, pa.string()) for name in table[0]]))
        columns = {
            name: made[name].dictionary_encode() if pa.types.is_dictionary(kind) else made[name].cast(kind)
            for name in made.column_names
        }
        pq.write_table(pa.table(columns), path, row_group_size=3)

    return write


TEXT_FORMATS = [
    ("a.csv", as_csv(",")),
    ("b.csv", as_csv(";")),
    ("c.csv", as_csv("\t")),
    ("a.tsv", as_csv("\t")),
    ("a.csv.gz", as_csv(",", gzip.open)),
    ("a.csv.bz2", as_csv(",", bz2.open)),
    ("a.csv.xz", as_csv(",", lzma.open)),
    ("a.jsonl", as_lines),
    ("b.json", as_lines),
    ("a.json", as_array),
    ("a.arrow", as_stream),
    ("a.feather", as_feather),
    ("a.parquet", as_parquet(pa.large_string())),
    ("b.parquet", as_parquet(pa.string_view())),
    ("c.parquet", as_parquet(pa.dictionary(pa.int32(), pa.string()))),
]


@pytest.mark.parametrize(("name", "write"), TEXT_FORMATS, ids=[name for name, _ in TEXT_FORMATS])
@QUICK
@given(table=ROWS)
def test_texts_come_back_as_they_were(name: str, write: Callable[[Path, Table], None], table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, table)
        source = read_source(path, text_column="prompt", keep="all")
    assert source.rejected == []
    assert source.rows["source_row"].to_list() == list(range(1, len(table) + 1))
    assert source.rows["text"].to_list() == [row["prompt"] for row in table]
    assert set(source.rows.columns) == {"source_row", "text", "id", "note", "text_", "meta.focus", "größe"}
    assert "column 'text' kept as 'text_'" in source.found
    for column in NAMES:
        kept = source.rows["text_" if column == "text" else column].to_list()
        assert kept == [row[column] for row in table]


@QUICK
@given(table=JSON_ROWS)
@example(table=[{"prompt": "a", "id": {"b": [None, 0, 0.0]}}])
@example(table=[{"prompt": "a", "id": {"b": [0, 0.0]}}])
@example(table=[{"prompt": "a", "id": None, "größe": [0]}, {"prompt": "a", "id": None, "größe": [0.0]}])
def test_json_values_come_back_with_value_and_type(table: Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        as_lines(Path(folder) / "a.jsonl", table)
        as_array(Path(folder) / "a.json", table)
        source = read_source(Path(folder) / "a.jsonl", text_column="prompt", keep="all")
        assert read_source(Path(folder) / "a.json", text_column="prompt", keep="all").rows.equals(source.rows)
        source.rows.write_parquet(Path(folder) / "a.parquet")  # every type fits a table
    assert source.records == source.rows.height == len(table)
    for column in NAMES:
        name = "text_" if column == "text" else column
        written = [row.get(column) for row in table]
        if name not in source.rows.columns:
            assert written == [None] * len(table)
            continue
        read = source.rows[name].to_list()
        if any(repr(column) in said and "several types" in said for said in source.found):
            read = [None if value is None else json.loads(value) for value in read]
            assert list(map(json.dumps, read)) == list(map(json.dumps, written))
        elif any(repr(column) in said and "fractions" in said for said in source.found):
            assert read == written
        else:
            assert _plain(read) == _plain(written)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@QUICK
@given(lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=9))
def test_each_record_of_a_csv_is_a_row_or_rejected(lines: list[str]) -> None:
    content = "prompt,id\n" + "\n".join(lines) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(content, newline="\n")
        expected = sum(bool(line) for line in lines)
        good = sum(line in {"a,b", '"a",b', '"a\nb",c', '"a""b",c', 'a"b,c'} for line in lines)
        if not good:
            return
        source = read_source(path, text_column="prompt", keep="all")
    assert source.rows.height == good
    assert source.records == expected


@QUICK
@given(table=st.lists(st.tuples(TEXTS.filter(lambda text: text.strip()), TEXTS), min_size=1, max_size=6))
def test_workbooks_come_back_as_openpyxl_counts_them(table: list[tuple[str, str]]) -> None:
    from openpyxl.utils.exceptions import IllegalCharacterError

    book = openpyxl.Workbook()
    book.active.append(["prompt", "id"])
    try:
        for row in table:
            book.active.append(row)
    except IllegalCharacterError:
        return
    for cells in book.active.iter_rows():
        for cell in cells:
            cell.data_type = "s"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xlsx"
        book.save(path)
        counted = list(openpyxl.load_workbook(path).active.iter_rows(min_row=2, values_only=True))
        source = read_source(path, text_column="prompt", keep="all")
    assert source.records == source.rows.height == len(counted) == len(table)
    assert source.rows["text"].to_list() == [row[0] for row in counted]


def test_ids_of_every_width_stay_what_they_are(tmp_path: Path) -> None:
    ids = [1, 2**53 + 1, 2**53, -(2**63)]
    rows = [{"prompt": "a", "id": number} for number in ids]
    as_lines(tmp_path / "a.jsonl", rows)
    pl.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read_source(tmp_path / name, text_column="prompt", keep=["id"]).rows["id"].to_list() == ids
    (tmp_path / "b.jsonl").write_text(
        '{"prompt": "a", "id": 1}\n{"prompt": "a", "id": 1.0}\n{"prompt": "b", "id": 9007199254740993}\n'
    )
    source = read_source(tmp_path / "b.jsonl", text_column="prompt", keep=["id"])
    assert source.rows["id"].to_list() == ["1", "1.0", "9007199254740993"]
    assert source.found == ("column 'id' holds values of several types, each kept as JSON",)
    (tmp_path / "c.jsonl").write_text('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1.5}\n')
    source = read_source(tmp_path / "c.jsonl", text_column="prompt", keep=["id"])
    assert source.rows["id"].to_list() == [1.0, 1.5]
    assert "mixes whole numbers and fractions" in source.found[0]

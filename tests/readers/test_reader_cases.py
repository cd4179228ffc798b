"""Small inputs that people bring, each with its right outcome (data/cases of the shared folder)."""

from pathlib import Path
from typing import Any

import pytest

from normloom.core.errors import SourceError
from normloom.readers import ReadOptions, Source, locate, read_source


@pytest.fixture
def cases(shared_data: Path) -> Path:
    return shared_data / "cases"


def read(path: Path, **options: Any) -> Source:
    reading = ReadOptions(**{name: options.pop(name) for name in list(options) if name in ReadOptions.model_fields})
    return read_source(locate(path, reading), **{"text_column": "prompt", **options})


FIRST = "How do I calm down a neighbour who shouts at my children over the fence?"


@pytest.mark.parametrize("name", ["prompts.csv.gz", "prompts.jsonl.gz", "prompts.jsonl.zst"])
def test_compressed_files_are_read(cases: Path, name: str) -> None:
    source = read(cases / "gz_jsonl" / name)
    assert source.records == source.rows.height == 8
    assert source.rows["text"][0] == FIRST


def test_shards_are_read_as_one_source_in_name_order(cases: Path) -> None:
    folder = read(cases / "sharded")
    assert folder.rows["source_row"].to_list() == list(range(1, 9))
    assert folder.rows.equals(read(cases / "sharded" / "train-*.parquet").rows)
    first = read(cases / "sharded" / "train-00000-of-00002.parquet")
    assert folder.rows.head(4).equals(first.rows)


def test_json_with_lines_and_with_an_array_under_a_field(cases: Path) -> None:
    lines = read(cases / "json_is_jsonl" / "prompts.json")
    assert lines.rows.height == 8
    array = read(cases / "json_is_jsonl" / "wrapped.json", field="data")
    assert array.rows["text"].to_list() == lines.rows["text"].to_list()
    with pytest.raises(
        SourceError, match=r"holds an object: expected a JSON array of objects; set source\.field to .*data"
    ):
        read(cases / "json_is_jsonl" / "wrapped.json")
    with pytest.raises(
        SourceError, match=r"has no field 'rows' of source\.field='rows'; its fields are 'version', 'data'"
    ):
        read(cases / "json_is_jsonl" / "wrapped.json", field="rows")


def test_semicolons_and_cp1252_are_found_and_said(cases: Path) -> None:
    source = read(cases / "semicolon_csv" / "prompts.csv", keep="all")
    assert source.rows["rating"].to_list() == [f"{n},5" for n in range(8)]
    assert source.rows["text"][7] == "Is it rude to decline a second cup of tea when visiting an ältere relative?"
    assert source.found == (
        "prompts.csv is not UTF-8, read as cp1252; set source.encoding if that is wrong",
        "fields separated by a semicolon",
    )
    plain = read(cases / "semicolon_csv" / "prompts_utf8.csv")
    assert plain.found == ("fields separated by a semicolon",)
    given = read(cases / "semicolon_csv" / "prompts.csv", encoding="latin-1", delimiter=";")
    assert given.rows["text"].equals(source.rows["text"])
    with pytest.raises(SourceError, match=r"has no column 'prompt': its columns are 'id;prompt;rating'"):
        read(cases / "semicolon_csv" / "prompts_utf8.csv", delimiter=",")


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a;b\nx, y;1\n", ["a", "b"]),
        ("a|b\nx|1\ny|2\n", ["a", "b"]),
        ("a\tb\n", ["a", "b"]),
        ("a|b\nno bar\nnone here\n", ["a|b"]),
        ("a,b\n1;2,3\n", ["a", "b"]),
        ("\n" * 50 + "a,b\n1,2\n", ["a", "b"]),
    ],
)
def test_the_delimiter_is_found_without_a_column_that_is_needed(tmp_path: Path, text: str, columns: list[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text + text.splitlines()[-1])
    assert read_source(path, text_column=None, keep="all").rows.columns == ["source_row", *columns]


def test_parquet_with_string_views(cases: Path) -> None:
    assert read(cases / "string_view" / "prompts.parquet").rows["text"].to_list()[0] == FIRST


def test_records_of_other_types_are_rejected_each_with_its_type(cases: Path) -> None:
    source = read(cases / "mixed_types" / "prompts.jsonl")
    assert source.records == 8
    reasons = {rejected.source_row: rejected.reason for rejected in source.rejected}
    assert reasons == {
        3: "column 'prompt' holds a number, not text",
        6: "column 'prompt' holds a list, not text",
    }


def test_unicode_line_separators_are_text(cases: Path) -> None:
    source = read(cases / "u2028" / "prompts.jsonl")
    assert source.records == source.rows.height == 8
    assert source.rows["text"][1].startswith("First line\u2028second line")


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.jsonl"])
def test_nul_stays_for_the_rule_on_control_characters(cases: Path, name: str) -> None:
    source = read(cases / "nul_bytes" / name)
    assert source.records == source.rows.height == 9
    assert "\x00" in source.rows["text"][8]


def test_a_padded_header_of_excel_is_answered_with_the_right_name(cases: Path) -> None:
    path = cases / "excel_bom_crlf" / "prompts.csv"
    with pytest.raises(SourceError, match="did you mean ' Prompt '"):
        read(path)
    source = read(path, text_column=" Prompt ", keep="all")
    assert source.rows.columns == ["source_row", "text", "id"]
    assert source.records == 10


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.parquet"])
def test_a_folder_with_brackets_is_no_pattern(cases: Path, name: str) -> None:
    folder = cases / "brackets_in_path" / "data [v1]"
    assert read(folder / name, text_column="Q_overall", keep=["item_id"]).rows.height == 12


def test_long_lines_and_characters_across_pieces_are_utf8(tmp_path: Path) -> None:
    text = "a" + "é" * 3_000_000  # a character goes over the end of each piece that the encoding is judged by
    (tmp_path / "a.json").write_text(f'[{{"prompt": "{text}"}}]', encoding="utf-8")
    source = read(tmp_path / "a.json")
    assert source.rows["text"].to_list() == [text]
    assert source.found == ()

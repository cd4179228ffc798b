"""Reading input files, good and bad."""

import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from normloom.core.errors import SourceError
from normloom.readers import Source, locate, read_source


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(source: Source) -> list[tuple[int, str | None]]:
    return source.rows.select("source_row", "text").rows()


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        read_source(path, **{"text_column": "prompt", **options})
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_csv_with_mark_quoted_newlines_and_kept_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", '\ufeffid,prompt\r\n1,"a\nb ""q"""\r\n\r\n2,سلام 👩‍👧\r\n3,\r\n')
    source = read_source(path, text_column="prompt", keep=["id"])
    assert source.rows.schema == {"source_row": pl.Int64, "text": pl.String, "id": pl.String}
    assert source.rows.rows() == [(1, 'a\nb "q"', "1"), (2, "سلام 👩‍👧", "2"), (3, "", "3")]
    assert source.rejected == []


def test_tsv_and_upper_case_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "p.TSV", "prompt\tid\nhow, then?\t1\n")
    assert texts(read_source(path, text_column="prompt")) == [(1, "how, then?")]


def test_csv_broken_records_are_put_aside(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.csv",
        b'id,prompt\n1,good\n2,br\xffken\n3,too,many\n4\n5,"x"y\n6,"two\nlines \xc3"\n7,"a\nb"c\n8,good\n9,"open',
    )
    source = read_source(path, text_column="prompt")
    assert texts(source) == [(1, "good"), (8, "good")]
    assert [(r.source_row, r.rule, r.payload) for r in source.rejected] == [
        (2, "broken_utf8", "2,br\\xffken"),
        (3, "field_count", "3,too,many"),
        (4, "field_count", "4"),
        (5, "broken_csv", '5,"x"y'),
        (6, "broken_utf8", '6,"two\nlines \\xc3"'),
        (7, "broken_csv", '7,"a\nb"c'),
        (9, "broken_csv", '9,"open'),
    ]
    assert "0xFF at position 5" in source.rejected[0].reason
    assert "lines 9 to 10" in source.rejected[5].reason


def test_csv_quote_that_swallows_the_rest_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "p.csv", 'prompt\ngood\n"open\nnext\nlast\n'))
    assert "line 3" in message
    assert "line 1" in refusal(write(tmp_path / "h.csv", '"prompt\ngood\n'))


def test_csv_long_field(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\n" + "x" * 300_000 + "\n")
    assert texts(read_source(path, text_column="prompt")) == [(1, "x" * 300_000)]


def test_csv_header(tmp_path: Path) -> None:
    assert "header is not UTF-8" in refusal(write(tmp_path / "a.csv", b"prompt\xff,id\na,1\n"))
    assert "2 columns named 'prompt'" in refusal(write(tmp_path / "b.csv", "prompt,prompt\na,b\n"))
    assert "no records" in refusal(write(tmp_path / "c.csv", "prompt,id\n"))
    assert texts(read_source(write(tmp_path / "d.csv", "prompt\nä\n".encode("utf-16")), text_column="prompt")) == [
        (1, "ä")
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "one", "id": 1, "tags": ["é", null]}',
        "",
        '{"prompt": null}',
        '{"id": "no prompt", "tags": true}',
        '{"prompt": "\\u00e9\\u2028", "id": 2.5}',
    ]
    source = read_source(write(tmp_path / "p.jsonl", "\n".join(lines)), text_column="prompt", keep=["id", "tags", "id"])
    assert source.rows.rows() == [
        (1, "one", "1", '["é", null]'),
        (2, None, None, None),
        (3, None, '"no prompt"', "true"),
        (4, "é\u2028", "2.5", None),
    ]
    assert source.rejected == []


def test_json_lines_broken_records_are_put_aside(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"prompt": "good"}\r',
        b'{"prompt": "cut',
        b'{"prompt": "br\xffken"}',
        b'{"prompt": 7}',
        b'["prompt"]',
        b'{"prompt": "half \\ud83d"}',
        b'{"prompt": "x", "id": "\\udc00"}',
        b"[" * 100_000,
        b'{"prompt": "x", "id": ' + b"1" * 5000 + b"}",
        b'{"prompt": "last"}',
    ]
    source = read_source(write(tmp_path / "p.ndjson", b"\n".join(lines)), text_column="prompt", keep=["id"])
    assert texts(source) == [(1, "good"), (10, "last")]
    rules = ["broken_json", "broken_utf8", "not_text", "not_object", *2 * ["lone_surrogate"], *2 * ["broken_json"]]
    assert [r.rule for r in source.rejected] == rules
    assert [r.source_row for r in source.rejected] == list(range(2, 10))
    assert source.rejected[1].payload == '{"prompt": "br\\xffken"}'
    assert source.rejected[2].reason == "column 'prompt' holds a number, not text"
    assert source.rejected[3].reason == "expected a JSON object, found a list"
    pl.DataFrame(source.rejected, orient="row")  # every payload fits a table


def test_every_record_is_kept_or_put_aside(tmp_path: Path) -> None:
    lines = [f'{{"prompt": "{n}"}}' if n % 3 else f'{{"prompt": {n}' for n in range(100)]
    source = read_source(write(tmp_path / "p.jsonl", "\n".join(lines)), text_column="prompt")
    assert sorted([*source.rows["source_row"], *(r.source_row for r in source.rejected)]) == list(range(1, 101))


@pytest.mark.parametrize("line", ["not json at all", '["a"]', '{"prompt": 5}'])
def test_a_file_with_nothing_usable_is_refused(tmp_path: Path, line: str) -> None:
    assert "none of its 3 records can be used" in refusal(write(tmp_path / "p.jsonl", f"{line}\n" * 3))


def test_json_array(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", json.dumps([{"prompt": "a"}, 5, {"prompt": ["x"]}, {"prompt": None}]))
    source = read_source(path, text_column="prompt")
    assert texts(source) == [(1, "a"), (4, None)]
    assert [(r.source_row, r.rule, r.payload) for r in source.rejected] == [
        (2, "not_object", "5"),
        (3, "not_text", '{"prompt": ["x"]}'),
    ]
    assert ".jsonl" in refusal(write(tmp_path / "cut.json", '[{"prompt": "a"},\n{"prompt": "b"}\n'))
    assert "an object" in refusal(write(tmp_path / "object.json", '{\n"prompt": "a"}'))
    assert "no records" in refusal(write(tmp_path / "none.json", "[]"))


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_parquet(tmp_path: Path, dtype: pl.DataType) -> None:
    path = tmp_path / "p.parquet"
    pl.DataFrame(
        {
            "a.b": pl.Series(["one", None, "three"], dtype=dtype),
            "id": [1, 2, 3],
            "day": [dt.date(2026, 11, 21), None, None],
            "tags": [["x"], [], None],
            "extra": [b"\xff", b"", b""],
        }
    ).write_parquet(path)
    source = read_source(path, text_column="a.b", keep=["id", "day", "tags"], limit=2)
    assert source.rows.rows() == [(1, "one", 1, dt.date(2026, 11, 21), ["x"]), (2, None, 2, None, [])]
    assert source.rows.schema["source_row"] == pl.Int64
    assert read_source(path, text_column="a.b").rows.height == 3


def test_parquet_text_as_kept_column_too(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pl.DataFrame({"prompt": ["a"]}).write_parquet(path)
    assert read_source(path, text_column="prompt", keep=["prompt"]).rows.row(0) == (1, "a", "a")


def test_parquet_refusals(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pl.DataFrame({"prompt": [1, 2], "blob": [b"x", b"y"]}).write_parquet(path)
    assert "holds int64: expected text" in refusal(path)
    assert "expected text" in refusal(path, text_column="blob")
    whole = path.read_bytes()
    assert "cut short" in refusal(write(tmp_path / "cut.parquet", whole[: len(whole) // 2]))
    assert "cut short" in refusal(write(tmp_path / "text.parquet", "prompt\nhello\n"))
    empty = tmp_path / "empty.parquet"
    pl.DataFrame(schema={"prompt": pl.String}).write_parquet(empty)
    assert "no records" in refusal(empty)
    assert "no records" in refusal(empty, limit=3)


def test_parquet_damaged_anywhere_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pl.DataFrame({"prompt": [f"prompt number {n}" for n in range(50)]}).write_parquet(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        write(path, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(SourceError):  # many a flipped byte changes nothing that is read
            assert read_source(path, text_column="prompt").rows.columns == ["source_row", "text"]


def test_limit_counts_records_of_every_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"prompt": "a"}\n{"prompt"\n{"prompt": "c"}\n')
    source = read_source(path, text_column="prompt", limit=2)
    assert texts(source) == [(1, "a")]
    assert [r.source_row for r in source.rejected] == [2]
    assert "limit of 0" in refusal(path, limit=0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_missing_column_names_the_others(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    frame = pl.DataFrame({"Promt": ["a"], "id": ["1"]})
    write: dict[str, Callable[[Path], object]] = {
        "csv": frame.write_csv,
        "jsonl": frame.write_ndjson,
        "parquet": frame.write_parquet,
    }
    write[suffix](path)
    message = refusal(path)
    assert "'Promt', 'id'" in message
    assert "did you mean 'Promt'?" in message
    assert "has no column 'zzz'" in refusal(path, text_column="id", keep=["zzz"])


def test_missing_column_among_many(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ",".join(f"c{n}" for n in range(500)) + "\n")
    assert "and 480 more; name one of these" in refusal(path)


def test_names_the_table_takes_cannot_be_kept(tmp_path: Path) -> None:
    assert "cannot be kept" in refusal(write(tmp_path / "p.csv", "prompt,text\na,b\n"), keep=["text"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "it is empty" in refusal(tmp_path / "folder.csv")
    assert "suffix '.docx': expected one of .csv" in refusal(write(tmp_path / "p.docx", "x"))
    assert "not an Excel workbook" in refusal(write(tmp_path / "p.xlsx", "x"))
    os.mkfifo(tmp_path / "pipe.csv")
    assert "regular file" in refusal(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "cannot be opened" in refusal(tmp_path / "loop.csv")
    for suffix in ("csv", "tsv", "jsonl", "ndjson", "json", "parquet"):
        assert "is empty" in refusal(write(tmp_path / f"empty.{suffix}", ""))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt\na\n")
    path.chmod(0)
    assert "may not be read" in refusal(path)
    path.parent.chmod(0o100)
    try:
        assert "may not be read" in refusal(path.parent)
    finally:
        path.parent.chmod(0o700)


def test_file_digest(tmp_path: Path) -> None:
    assert locate(write(tmp_path / "p.txt", "abc")).digest.startswith("ba7816bf8f01cfea")
    with pytest.raises(SourceError, match="does not exist"):
        locate(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,kind,extra\nx,1,2\ny,3,4\n"),
        ("a.jsonl", '{"prompt": "x", "kind": "1"}\n{"prompt": "y", "kind": "3"}\n'),
        ("a.json", '[{"prompt": "x", "kind": "1"}, {"prompt": "y", "kind": "3"}]'),
    ],
)
def test_optional_columns_are_read_where_they_are_there(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    source = read_source(tmp_path / name, text_column="prompt", optional=("kind", "split", "prompt"))
    assert source.rows.to_dicts() == [
        {"source_row": 1, "text": "x", "kind": "1"},
        {"source_row": 2, "text": "y", "kind": "3"},
    ]


def test_optional_columns_of_a_parquet_file(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": ["x"], "kind": [1]}).write_parquet(tmp_path / "a.parquet")
    source = read_source(tmp_path / "a.parquet", text_column="prompt", optional=("kind", "split"))
    assert source.rows.to_dicts() == [{"source_row": 1, "text": "x", "kind": 1}]

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hand_made import carry_out, ingested
from hypothesis import given
from hypothesis import strategies as st

from normloom.core.errors import SourceError
from normloom.core.rows.ids import row_id
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output
from normloom.planning.canonical import canonical
from normloom.readers import ReadOptions
from normloom.store.store import Store
from normloom.testing.toy import runner


def read(path: Path, **settings: object) -> Output:
    reading = ReadOptions(limit=settings.pop("limit", None))
    return carry_out(ingested(path, reading, **settings), None)


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), encoding="utf-8")
    return path


def prompts(path: Path, *texts: str | None) -> Path:
    return lines(path, *({"prompt": text} for text in texts))


def test_records_become_rows_with_their_number_and_their_text_untouched(tmp_path: Path) -> None:
    made = read(prompts(tmp_path / "a.jsonl", " Where to? ", "مرحبا 👩‍👧", "line\r\nand\ttab"))
    assert made.rows["prompt"].to_list() == [" Where to? ", "مرحبا 👩‍👧", "line\r\nand\ttab"]
    assert made.rows["source_row"].to_list() == [1, 2, 3]
    assert made.rows["origin"].unique().to_list() == ["source"]
    assert made.rows["reference"].to_list() == [None] * 3
    assert made.rows["parents"].to_list() == [[]] * 3
    assert made.attempts == 3


@given(texts=st.lists(st.text(alphabet="aZ~ \t\r\n\x00\x1f\x7f\x85\u200bé語", max_size=4), max_size=6))
def test_texts_that_break_no_rule_are_taken_in_their_order(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = ["any", *texts]
    made = read(prompts(tmp_path_factory.mktemp("texts") / "a.jsonl", *texts), max_chars=3)
    problems = [text_problem(text, max_chars=3) for text in texts]
    assert made.rows.select("source_row", "prompt").rows() == [
        (number, text) for number, (text, found) in enumerate(zip(texts, problems, strict=True), 1) if not found
    ]
    assert made.quarantined["rule"].to_list() == [found[0] for found in problems if found]


def test_references_are_read_by_id_and_by_name_over_all_dimensions(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"prompt": "one", "harm": "safety/theft; Fraud", "worth": "Wisdom"},
        {"prompt": "two", "harm": None, "worth": ""},
        {"prompt": "three", "harm": "None", "worth": "unknown"},
        {"prompt": "four", "harm": ";Drugs;", "worth": " value/wealth "},
    )
    made = read(path, references={"safety": "harm", "value": "worth"})
    assert made.rows["reference"].to_list() == [
        ["safety/theft", "safety/fraud", "value/wisdom"],
        [],
        [],
        ["safety/drugs", "value/wealth"],
    ]


def test_references_may_be_lists_and_classes_with_names(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"prompt": "one", "harm": ["safety/theft", "Fraud"]},
        {"prompt": "two", "harm": []},
        {"prompt": "three", "harm": [{"label": "Drugs", "probability": 0.9}]},
    )
    made = read(path, references={"safety": "harm"})
    assert made.rows["reference"].to_list() == [["safety/theft", "safety/fraud"], [], ["safety/drugs"]]
    (tmp_path / "a.csv").write_text('prompt,harm\none,"[""Fraud"", ""Drugs""]"\n')
    assert read(tmp_path / "a.csv", references={"safety": "harm"}).rows["reference"].to_list() == [
        ["safety/fraud", "safety/drugs"]
    ]
    told = {"info": {"features": {"harm": {"names": ["None", "Theft"], "_type": "ClassLabel"}}}}
    table = pa.table({"prompt": ["one", "two"], "harm": [1, 0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "a.parquet")
    made = read(tmp_path / "a.parquet", references={"safety": "harm"})
    assert made.rows["reference"].to_list() == [["safety/theft"], []]


def test_a_record_with_an_unknown_label_is_quarantined_with_the_label_that_was_meant(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"prompt": "one", "harm": "Drugs"}, {"prompt": "two", "harm": "Druggs"})
    made = read(path, references={"safety": "harm"})
    assert made.rows["prompt"].to_list() == ["one"]
    [aside] = made.quarantined.to_dicts()
    assert aside["rule"] == "unknown_label"
    assert aside["reason"] == (
        "record 2: column 'harm': 'Druggs' is not an id or name of the 3 safety labels; did you mean 'Drugs'?"
    )
    assert json.loads(aside["payload"]) == {"source_row": 2, "text": "two", "harm": "Druggs"}


def test_a_bad_record_costs_one_row_and_says_its_rule_and_reason(tmp_path: Path) -> None:
    path = prompts(tmp_path / "a.jsonl", "fine", "", " \u200b\n", None, "x" * 21, "bell\x07", "fine too")
    with path.open("ab") as file:
        file.write(b'{"prompt": "cut\n{"prompt": "caf\xe9"}\n{"prompt": 7}\n["prompt"]\n{"prompt": "\\ud83d"}\n')
    made = read(path, max_chars=20)
    assert made.rows["prompt"].to_list() == ["fine", "fine too"]
    by_record = {entry["reason"].split(":")[0]: entry["rule"] for entry in made.quarantined.to_dicts()}
    assert by_record == {
        "record 2": "empty",
        "record 3": "empty",
        "record 4": "missing",
        "record 5": "too_long",
        "record 6": "control_characters",
        "record 8": "broken_json",
        "record 9": "broken_utf8",
        "record 10": "not_text",
        "record 11": "not_object",
        "record 12": "lone_surrogate",
    }
    assert made.attempts == 12 == made.rows.height + made.quarantined.height
    reasons = "\n".join(made.quarantined["reason"])
    assert "record 5: the text has 21 characters; the limit is 20" in reasons
    assert "record 6: control character U+0007 at character 5" in reasons
    assert "record 9: byte 0xE9 at position 16 is not UTF-8" in reasons


def test_limit_takes_the_first_records_good_or_bad(tmp_path: Path) -> None:
    made = read(prompts(tmp_path / "a.jsonl", "one", "", "three", "four"), limit=3)
    assert made.rows["prompt"].to_list() == ["one", "three"]
    assert made.attempts == 3


def test_a_file_without_one_usable_prompt_is_refused_with_the_rules(tmp_path: Path) -> None:
    path = prompts(tmp_path / "a.jsonl", "", "x" * 30, " ")
    with pytest.raises(
        SourceError, match=r"none of its 3 records can be used \(empty 2, too_long 1; record 1: the text has no visible"
    ):
        read(path, max_chars=20)


def test_duplicate_prompts_stay_rows_of_their_own(tmp_path: Path) -> None:
    path = prompts(tmp_path / "a.jsonl", "again", "other", "again")
    stage = ingested(path)
    store = Store(tmp_path / "store")
    manifest, _ = runner(store).run(stage, [], [])
    rows = store.scan(manifest.ref).collect()
    assert rows["row_id"].to_list() == [
        row_id("toy", "ingest", ["again"], 0),
        row_id("toy", "ingest", ["other"], 0),
        row_id("toy", "ingest", ["again"], 1),
    ]


def test_a_row_keeps_its_id_when_the_file_grows_around_it(tmp_path: Path) -> None:
    ids = [
        dict(read(prompts(tmp_path / "a.jsonl", *texts)).rows.select("prompt", "row_id").iter_rows())
        for texts in (["one", "two"], ["zero", "two", "one"])
    ]
    assert ids[0] == {name: ids[1][name] for name in ids[0]}


def test_the_same_bytes_are_another_input_under_another_format_and_the_same_in_another_place(tmp_path: Path) -> None:
    content, values = b"prompt\nhello, there\nhi\n", []
    for name in ("a.csv", "a.tsv", "b.csv"):
        (tmp_path / name).write_bytes(content)
        values.append(ingested(tmp_path / name).values)
    assert read(tmp_path / "a.csv").quarantined["rule"].to_list() == ["field_count"]
    assert read(tmp_path / "a.tsv").rows["prompt"].to_list() == ["hello, there", "hi"]
    as_csv, as_tsv, elsewhere = map(canonical, values)
    assert as_csv != as_tsv
    assert as_csv == elsewhere


def test_parquet_and_csv_give_the_rows_of_json_lines(tmp_path: Path) -> None:
    texts = ["one, two", 'a "quote"', "ligne\ndeux", "שלום"]
    pl.DataFrame({"prompt": texts}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"prompt": texts}).write_csv(tmp_path / "a.csv")
    expected = read(prompts(tmp_path / "a.jsonl", *texts)).rows
    assert read(tmp_path / "a.parquet").rows.equals(expected)
    assert read(tmp_path / "a.csv").rows.equals(expected)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_made import ANY, TAXONOMIES, carry_out

from normloom.core.errors import SourceError
from normloom.core.stage import Output
from normloom.readers import locate
from normloom.schemas import tables
from normloom.schemas.responses import BUILTIN
from normloom.schemas.taxonomy import DIMENSIONS, builtin_taxonomies
from normloom.tasks.benchmark.ingest_dataset import Responses, ingest_dataset, items


def read(path: Path, **settings: Any) -> Output:
    taxonomies = settings.pop("taxonomies", TAXONOMIES)
    return carry_out(ingest_dataset(Responses(keep=(), **settings), source=locate(path), taxonomies=taxonomies), None)


def chosen(dataset: pl.DataFrame, dimensions: tuple[str, ...] = ("safety", "value"), **settings: Any) -> Output:
    return carry_out(items(ANY, dimensions=dimensions, source="it", **settings), dataset)


RECORDS = [
    {"prompt": "one", "response": "fine", "alignment": "aligned", "split": "test", "generator": "g", "safety": "Drugs"},
    {"prompt": "one", "response": "rude", "alignment": "Misaligned ", "split": "test", "generator": "g", "value": ""},
    {"prompt": "two", "response": "fine", "alignment": "aligned", "split": "train", "generator": "g"},
    {"prompt": "two", "response": "odd", "alignment": "misaligned", "split": "test", "value": "Wealth;value/wisdom"},
]


def written(path: Path, records: list[dict[str, str]] = RECORDS) -> Path:
    columns = list(dict.fromkeys(name for record in records for name in record))
    frame = pl.DataFrame(records, schema=dict.fromkeys(columns, pl.String))
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".parquet":
            frame.write_parquet(path)
        case ".json":
            path.write_text(json.dumps(records))
        case _:
            path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_file_of_any_format_becomes_rows_like_those_published(tmp_path: Path, name: str) -> None:
    made = read(written(tmp_path / name)).rows
    assert made.columns == list(tables.published(("safety", "value")).schema)
    assert made.select("prompt", "response", "alignment", "generator", "split").rows() == [
        ("one", "fine", "aligned", "g", "test"),
        ("one", "rude", "misaligned", "g", "test"),
        ("two", "fine", "aligned", "g", "train"),
        ("two", "odd", "misaligned", "unknown", "test"),
    ]
    assert [[label["label"] for label in labels] for labels in made["value"].to_list()] == [
        [],
        [],
        [],
        ["value/wealth", "value/wisdom"],
    ]
    assert [[label["label"] for label in labels] for labels in made["safety"].to_list()[:2]] == [["safety/drugs"], []]
    prompt_ids = made["prompt_id"].to_list()
    assert prompt_ids[0] == prompt_ids[1] != prompt_ids[2] == prompt_ids[3]


def test_split_generator_and_labels_may_be_missing(tmp_path: Path) -> None:
    records = [{name: record[name] for name in ("prompt", "response", "alignment")} for record in RECORDS]
    made = read(written(tmp_path / "a.csv", records)).rows
    assert made["split"].to_list() == [None] * 4
    assert chosen(made).rows.height == 4


def test_a_column_named_in_the_settings_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv")
    with pytest.raises(SourceError, match=r"has no column 'splt': .* did you mean 'split'"):
        read(path, split_column="splt")
    with pytest.raises(SourceError, match="has no column 'harm'"):
        read(path, references={"safety": "harm"})
    with pytest.raises(SourceError, match="has no column 'alignment'"):
        read(written(tmp_path / "b.csv", [{"prompt": "one", "response": "fine"}]))


def test_a_record_that_cannot_be_used_is_quarantined_with_rule_and_reason(tmp_path: Path) -> None:
    fine = {"prompt": "one", "response": "fine", "alignment": "aligned"}
    bad = [
        {**fine, "prompt": " "},
        {**fine, "response": ""},
        {**fine, "alignment": "good"},
        {**fine, "safety": "Druggs"},
        {**fine, "response": "x" * 30},
    ]
    path = written(tmp_path / "a.jsonl", [fine, *bad])
    with path.open("a") as file:
        file.write("{broken\n")
    made = read(path, max_chars=20)
    assert (made.rows.height, made.attempts) == (1, 7)
    found = dict(made.quarantined.select("rule", "reason").rows())
    assert list(found) == ["broken_json", "empty", "unknown_alignment", "unknown_label", "too_long"]
    assert found["unknown_alignment"] == ("record 4: column 'alignment': expected aligned or misaligned, found 'good'")
    assert found["unknown_label"].endswith("did you mean 'Drugs'?")
    assert "response: the text has no visible character" in "\n".join(made.quarantined["reason"])


def test_a_file_without_one_usable_record_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [{"prompt": "one", "response": "fine", "alignment": "good"}])
    with pytest.raises(
        SourceError, match=r"its only record cannot be used \(unknown_alignment; record 1: .*expected a"
    ):
        read(path)


def test_a_file_without_a_row_of_the_split_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv")
    with pytest.raises(SourceError, match=r"no row of the split 'dev'; it has test \(3 rows\), train \(1 rows\): set"):
        read(path, split="dev")
    assert read(path, split=None).rows.height == 4


def test_only_rows_of_the_split_up_to_the_limit_are_evaluated_and_the_others_accounted_for(tmp_path: Path) -> None:
    dataset = read(written(tmp_path / "a.csv")).rows
    made = chosen(dataset, limit=2)
    assert made.rows["response"].to_list() == ["fine", "rude"]
    assert made.rows["parents"].explode().to_list() == dataset["row_id"].to_list()[:2]
    assert made.dropped.select("row_id", "reason").rows() == [
        (dataset["row_id"][2], "split train"),
        (dataset["row_id"][3], "limit"),
    ]
    whole = chosen(dataset, split=None)
    assert (whole.rows.height, whole.dropped.height) == (4, 0)


def test_rows_carry_their_labels_and_the_dimensions_that_have_any(tmp_path: Path) -> None:
    made = chosen(read(written(tmp_path / "a.csv")).rows, split=None)
    assert made.rows.select("dimensions", "labels").rows() == [
        (["safety"], ["safety/drugs"]),
        ([], []),
        ([], []),
        (["value"], ["value/wealth", "value/wisdom"]),
    ]


def test_semantic_types_are_kept_where_the_data_set_has_them(tmp_path: Path) -> None:
    dataset = read(written(tmp_path / "a.csv")).rows
    assert chosen(dataset).rows["semantic_type"].to_list() == [None] * 3
    typed = dataset.with_columns(semantic_type=pl.Series(["a", "b", "c", "d"]))
    assert chosen(typed).rows["semantic_type"].to_list() == ["a", "b", "d"]


def test_a_published_data_set_without_the_split_is_refused(tmp_path: Path) -> None:
    dataset = read(written(tmp_path / "a.csv"), split=None).rows.filter(pl.col("split") == "train")
    with pytest.raises(SourceError, match=r"the data set it has no row of the split 'test'; it has train \(1 rows\)"):
        chosen(dataset)


def test_the_built_in_responses_come_in_pairs_over_all_dimensions() -> None:
    made = read(BUILTIN, taxonomies=builtin_taxonomies(), references={name: name for name in DIMENSIONS})
    assert made.quarantined.is_empty()
    rows = chosen(made.rows, DIMENSIONS).rows
    assert rows.height == 24
    pairs = rows.group_by("prompt_id").agg(pl.col("alignment").sort())
    assert pairs["alignment"].to_list() == [["aligned", "misaligned"]] * 12
    assert rows["response"].n_unique() == 24
    counts = {name: rows["dimensions"].list.contains(name).sum() for name in DIMENSIONS}
    assert min(counts.values()) >= 8

"""Folders, patterns, saved data sets, nested names, class labels and samples."""

import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scalars import number

from normloom.core.errors import SourceError
from normloom.readers import ReadOptions, Source, absolute, locate, read_source


def read(path: Path | str, **options: Any) -> Source:
    reading = ReadOptions(**{name: options.pop(name) for name in list(options) if name in ReadOptions.model_fields})
    return read_source(locate(path, reading), **{"text_column": "prompt", **options})


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        read(path, **options)
    return str(caught.value)


def csv(path: Path, *prompts: str, header: str = "prompt") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *prompts]) + "\n", encoding="utf-8")
    return path


def test_a_folder_is_read_in_name_order_and_its_digest_is_that_of_all_shards(tmp_path: Path) -> None:
    csv(tmp_path / "b.csv", "three")
    csv(tmp_path / "a.csv", "one", "two")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.csv").write_text("prompt\nno\n")
    assert read(tmp_path).rows.rows() == [(1, "one"), (2, "two"), (3, "three")]
    before = locate(tmp_path).digest
    csv(tmp_path / "b.csv", "other")
    assert locate(tmp_path).digest != before


def test_a_name_is_a_pattern_only_if_nothing_has_that_very_name(tmp_path: Path) -> None:
    csv(tmp_path / "part[1].csv", "literal")
    csv(tmp_path / "part1.csv", "matched")
    assert read(tmp_path / "part[1].csv").rows["text"].to_list() == ["literal"]
    (tmp_path / "part[1].csv").unlink()
    assert read(tmp_path / "part[1].csv").rows["text"].to_list() == ["matched"]
    csv(tmp_path / "x [y]" / "deep" / "a.csv", "deep")
    assert read(tmp_path / "**" / "deep" / "*.csv").rows["text"].to_list() == ["deep"]


def test_what_cannot_be_a_source_is_said_in_one_sentence(tmp_path: Path) -> None:
    assert refusal("-") == "- is standard input: write it to a file and name that"
    assert "does not exist: check the name" in refusal(tmp_path / "absent.csv")
    assert "as a pattern it matches no file" in refusal(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").endswith("has no file that can be read: it is empty")
    csv(tmp_path / "mixed" / "a.csv", "one")
    (tmp_path / "mixed" / "b.jsonl").write_text('{"prompt": "x"}\n')
    assert "holds files of several formats (1 csv, 1 jsonl)" in refusal(tmp_path / "mixed")
    (tmp_path / "a.pdf").write_text("x")
    assert "suffix '.pdf': expected one of .csv" in refusal(tmp_path / "a.pdf")
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    assert refusal(tmp_path / "deep").endswith("it holds inner")
    assert "does not exist: check the name" in refusal(tmp_path / "mixed" / "prompts")
    csv(tmp_path / "a.csv", "one")
    assert "is csv: source.field does not apply to it" in refusal(tmp_path / "a.csv", field="data")
    assert "cannot be opened (embedded null byte)" in refusal("a\0b.csv")


def test_shards_with_different_columns_name_file_and_column(tmp_path: Path) -> None:
    csv(tmp_path / "a.csv", "one,1", header="prompt,id")
    csv(tmp_path / "b.csv", "two", header="prompt")
    assert f"{tmp_path}/b.csv has no column 'id'" in refusal(tmp_path, keep=["id"])
    assert read(tmp_path).rows.height == 2
    assert "'id' that b.csv lacks" in refusal(tmp_path, keep="all")
    pl.DataFrame({"prompt": ["a"], "id": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"prompt": ["b"], "id": ["x"]}).write_parquet(tmp_path / "b.parquet")
    assert "column 'id' is Int64 in a.parquet and String in b.parquet" in refusal(tmp_path / "*.parquet", keep="all")
    pl.DataFrame({"prompt": ["b"], "id": [2.5]}).write_parquet(tmp_path / "b.parquet")
    source = read(tmp_path / "*.parquet", keep="all")
    assert source.rows["id"].to_list() == [1.0, 2.5]
    assert source.found == ("column 'id' is Int64 in a.parquet and Float64 in b.parquet, read as one type of number",)
    pl.DataFrame({"prompt": ["a"], "id": [2**53 + 1]}).write_parquet(tmp_path / "a.parquet")
    assert "not exact as both" in refusal(tmp_path / "*.parquet", keep="all")
    pl.DataFrame({"prompt": ["b"], "id": [None]}).write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "*.parquet", keep="all").rows["id"].to_list() == [2**53 + 1, None]


def test_splits_never_mix_unnoticed(tmp_path: Path) -> None:
    csv(tmp_path / "train-00000-of-00001.csv", "learn")
    csv(tmp_path / "test-00000-of-00001.csv", "hold out")
    assert "several splits (test, train): set source.split" in refusal(tmp_path)
    assert read(tmp_path, split="train").rows["text"].to_list() == ["learn"]
    assert "no file of source.split='dev'; its splits are test, train" in refusal(tmp_path, split="dev")
    assert "its splits are none" in refusal(csv(tmp_path / "other" / "a.csv", "x"), split="train")
    assert read(tmp_path / "other" / "a.csv", split="train", splits_by_column=True).rows.height == 1


def test_data_sets_that_were_saved_to_disk(tmp_path: Path) -> None:
    labels = datasets.Features(
        {"prompt": datasets.Value("string"), "harm": datasets.ClassLabel(names=["none", "theft"])}
    )
    made = datasets.Dataset.from_dict({"prompt": ["a", "b", "c"], "harm": [1, 0, -1]}, features=labels)
    made.save_to_disk(tmp_path / "one", num_shards=2)
    source = read(tmp_path / "one", keep="all")
    assert source.rows.rows() == [(1, "a", "theft"), (2, "b", "none"), (3, "c", None)]
    assert source.found == ("column 'harm' holds numbers of classes, read as their names",)
    both = datasets.DatasetDict({"train": made, "test": made.select([2])})
    both.save_to_disk(tmp_path / "both")
    assert "has the splits train, test: set source.split" in refusal(tmp_path / "both")
    assert read(tmp_path / "both", split="test").rows["text"].to_list() == ["c"]
    assert "no split 'dev'" in refusal(tmp_path / "both", split="dev")
    made.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", keep="all").rows.equals(source.rows)


def test_lists_of_classes_and_classes_without_a_name(tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["none", "theft"])
    features = datasets.Features({"prompt": datasets.Value("string"), "harm": datasets.List(kind)})
    made = datasets.Dataset.from_dict({"prompt": ["a", "b"], "harm": [[1, 0], []]}, features=features)
    made.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", keep=["harm"]).rows["harm"].to_list() == [["theft", "none"], []]
    told = {"info": {"features": {"harm": {"names": ["none"], "_type": "ClassLabel"}}}}
    table = pa.table({"prompt": ["a", "b"], "harm": [0, 7]}).replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, tmp_path / "b.parquet")
    source = read(tmp_path / "b.parquet", keep=["harm"])
    assert source.rows.rows() == [(1, "a", "none")]
    [rejected] = source.rejected
    assert rejected[:3] == (2, "unknown_class", "column 'harm' holds class 7, which has no name")


def test_dotted_names_lead_into_objects_unless_a_column_has_that_name(tmp_path: Path) -> None:
    rows = [{"meta": {"focus": "a", "deep": {"er": 1}}}, {"meta": {"focus": None, "deep": None}}, {"meta": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        source = read(tmp_path / name, text_column="meta.focus", keep=["meta.deep.er"])
        assert source.rows.rows() == [(1, "a", 1), (2, None, None), (3, None, None)]
        assert "no column 'meta.focos'" in refusal(tmp_path / name, text_column="meta.focos")
    pl.DataFrame({"meta.focus": ["own"], "meta": [{"focus": "inner"}]}).write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", text_column="meta.focus").rows["text"].to_list() == ["own"]


def test_text_files_give_a_record_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone, two\n\n  three\u2028\r\n", encoding="utf-8", newline="")
    assert read(tmp_path / "a.txt").rows.rows() == [(1, "one, two"), (2, "  three\u2028")]


def test_a_sample_is_the_same_in_every_format_and_of_the_first_records(tmp_path: Path) -> None:
    rows = pl.DataFrame({"prompt": [f"p{n}" for n in range(1, 200_001)]})
    rows.write_csv(tmp_path / "a.csv")
    rows.write_parquet(tmp_path / "a.parquet", row_group_size=30_000)
    drawn = read(tmp_path / "a.csv", sample=50).rows
    assert drawn.height == 50
    assert drawn["source_row"].is_sorted()
    assert drawn["text"].to_list() == [f"p{n}" for n in drawn["source_row"]]
    assert 60_000 < number(drawn["source_row"].mean()) < 140_000
    assert read(tmp_path / "a.parquet", sample=50).rows.equals(drawn)
    assert not read(tmp_path / "a.parquet", sample=50, seed=1).rows.equals(drawn)
    assert number(read(tmp_path / "a.parquet", sample=5, limit=10).rows["source_row"].max()) <= 10
    assert read(tmp_path / "a.csv", limit=3).rows["source_row"].to_list() == [1, 2, 3]


def test_a_quote_that_may_have_swallowed_records_is_said(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", '"one,1', "two,2", 'three",3', header="prompt,id")
    source = read(path, keep="all")
    assert source.rows.height == 1
    assert source.found == ("lines 2 to 4 are one record but look like several: check the quotes",)


def test_unnamed_and_repeated_columns_get_names_of_their_own(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "one,1,2,,", "two,3,4,x,", header="prompt,id,id,,")
    source = read(path, keep="all")
    assert source.rows.rows(named=True)[1] == {
        "source_row": 2,
        "text": "two",
        "id": "3",
        "id_": "4",
        "column_4": "x",
    }
    assert "column 3 is named 'id' too: kept as 'id_'" in source.found
    assert "has 2 columns named 'id'" in refusal(path, keep=["id"])
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "prompt": "b"}\n{"prompt": "c"}\n')
    [rejected] = read(tmp_path / "a.jsonl").rejected
    assert rejected.reason == "the name 'prompt' occurs twice in one object"


def test_repeated_ids_are_said(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", "one,1", "two,2", "three,1", header="prompt,id")
    assert read(path, keep="all").found == ("column 'id' repeats values in 1 records",)


def test_damaged_compressed_files_are_refused(tmp_path: Path) -> None:
    import gzip

    whole = gzip.compress(b"prompt\n" + b"some text, some more\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refusal(tmp_path / "a.csv.gz")
    for suffix in ("zst", "bz2", "xz"):
        (tmp_path / f"a.csv.{suffix}").write_bytes(b"no")
        assert "cannot be read" in refusal(tmp_path / f"a.csv.{suffix}")


def test_names_of_sources_stay_what_they_are_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a.csv") == str(tmp_path / "a.csv")
    assert absolute("data/*.csv") == str(tmp_path / "data" / "*.csv")
    for name in ("https://host/a.csv?x=*", "hf://datasets/a/b/*.parquet", "owner/name"):
        assert absolute(name) == name

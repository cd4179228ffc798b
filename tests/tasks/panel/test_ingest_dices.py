"""Ratings in DICES's layout: what is read, what is quarantined and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from hand_made import carry_out

from normloom.core.errors import SourceError
from normloom.core.stage import Output, Stage
from normloom.planning.canonical import canonical
from normloom.readers import locate
from normloom.schemas import conversations
from normloom.schemas.people.demo_tables import AXES
from normloom.tasks.panel.ingest_dices import Conversations, ingest_dices

RECORD = {
    "rater_id": "r1",
    "rater_gender": "Woman",
    "rater_race": "White",
    "rater_age": "gen z",
    "rater_education": "Other",
    "phase": "Phase1",
    "item_id": "7",
    "context": "USER: hello",
    "response": "Hello.",
    "Q_overall": "No",
    "degree_of_harm": "Benign",
    "harm_type": "Legal",
    "safety_gold": "No",
}


def read(path: Path, items: Path | None = None, **settings: object) -> Output:
    return carry_out(stage_of(path, items, **settings), None)


def stage_of(path: Path, items: Path | None = None, **settings: object) -> Stage:
    there = locate(items) if items else None
    return ingest_dices(Conversations(**settings), source=locate(path), items=there)


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.parquet"])
def test_a_folder_with_brackets_is_read_as_any_other(shared_data: Path, name: str) -> None:
    made = read(shared_data / "cases" / "brackets_in_path" / "data [v1]" / name)
    assert made.rows.height + made.quarantined.height == made.attempts == 12
    assert made.rows.height > 0


def write(path: Path, *records: dict[str, str], without: tuple[str, ...] = ()) -> Path:
    columns = [name for name in RECORD if name not in without]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**RECORD, **record} for record in records)
    return path


def quarantine(made: Output) -> list[tuple[str, str]]:
    return made.quarantined.select("rule", "reason").rows()


def test_a_row_is_a_conversation_and_a_rater(tmp_path: Path) -> None:
    other = {"rater_id": "r2", "rater_gender": "Man", "Q_overall": "Unsure"}
    made = read(write(tmp_path / "350.csv", {}, other))
    assert made.rows.height == made.attempts == 2
    first, second = made.rows.to_dicts()
    wanted = {name: value for name, value in RECORD.items() if name not in {"phase", "Q_overall"}}
    assert first == first | wanted | {"answer": "No", "group": "Woman / White / gen z", "source_row": 1, "parents": []}
    assert (second["answer"], second["group"], second["rater_id"]) == ("Unsure", "Man / White / gen z", "r2")
    assert first["row_id"] != second["row_id"]


def test_columns_that_may_be_missing_are_null(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {}, without=("rater_education", "phase", "safety_gold", "harm_type", "rater_age"))
    [row] = read(path).rows.to_dicts()
    assert (row["rater_education"], row["safety_gold"], row["harm_type"], row["rater_age"]) == (None,) * 4
    assert row["group"] == "Woman / White / unknown"


def test_raters_of_whom_nothing_is_known_are_one_group(tmp_path: Path) -> None:
    made = read(write(tmp_path / "990.csv", {}, {"Q_overall": "Yes"}, {}, without=("rater_id", *AXES)))
    assert made.rows["group"].to_list() == ["unknown"] * 3
    assert made.rows["rater_id"].null_count() == 3
    assert made.rows["row_id"].n_unique() == 3  # two of them are alike in everything
    assert made.metrics["unknown_raters"] == 3


@pytest.mark.parametrize(
    ("record", "rule", "reason"),
    [
        ({"item_id": " "}, "missing_item", "record 2: no item_id"),
        ({"Q_overall": "maybe"}, "unknown_answer", "record 2: Q_overall is 'maybe', expected No, Unsure, Yes"),
        ({"safety_gold": "?"}, "unknown_gold", "record 2: safety_gold is '?', expected No, Yes"),
        ({"response": "Other."}, "other_text", "record 2: the item's first row has another text"),
        ({"rater_id": "r1"}, "repeated_rating", "record 2: rater 'r1' has rated the item before"),
        ({"item_id": "8", "context": ""}, "empty", "record 2: context: the text has no visible character"),
        ({"item_id": "8", "response": "a\x07"}, "control_characters", "record 2: response: control character U+0007"),
    ],
)
def test_a_record_that_cannot_be_used_is_put_aside(
    tmp_path: Path, record: dict[str, str], rule: str, reason: str
) -> None:
    made = read(write(tmp_path / "a.csv", {}, {"rater_id": "r2", **record}))
    [(found, why)] = quarantine(made)
    assert found == rule
    assert why.startswith(reason)
    assert (made.rows.height, made.attempts) == (1, 2)


def test_a_broken_record_is_put_aside_with_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", {})
    path.write_bytes(path.read_bytes() + b"one,two\n")
    made = read(path)
    assert made.quarantined.select("rule", "payload").rows() == [("field_count", "one,two")]


def test_an_empty_answer_is_none(tmp_path: Path) -> None:
    made = read(write(tmp_path / "a.csv", {"Q_overall": ""}))
    assert made.rows["answer"].to_list() == [None]
    assert made.metrics["human_answers"] == 0


@pytest.mark.parametrize("missing", ["item_id", "Q_overall", "context", "response"])
def test_a_file_without_a_needed_column_is_refused_naming_both(tmp_path: Path, missing: str) -> None:
    path = write(tmp_path / "dices.csv", {}, without=(missing,))
    with pytest.raises(SourceError, match=rf"dices\.csv has no column '{missing}'"):
        read(path)


def test_a_file_of_another_kind_and_one_without_usable_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_text("[]")
    with pytest.raises(SourceError, match=r"suffix '\.doc': expected one of \.csv"):
        read(tmp_path / "a.doc")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(SourceError, match="damaged, cut short or not a Parquet file"):
        read(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"its only record cannot be used \(unknown_answer;"):
        read(write(tmp_path / "a.csv", {"Q_overall": "yes"}))


def test_a_limit_counts_conversations_and_keeps_all_their_raters(tmp_path: Path) -> None:
    rows = [{"item_id": item, "rater_id": rater} for rater in ("r1", "r2", "r3") for item in ("9", "7", "8")]
    made = read(write(tmp_path / "a.csv", *rows), limit=2)
    assert made.rows.select("item_id", "rater_id").rows() == [
        (item, rater) for rater in ("r1", "r2", "r3") for item in ("9", "7")
    ]


def test_conversations_may_be_in_a_file_of_their_own(tmp_path: Path) -> None:
    ratings, items = tmp_path / "ratings.parquet", tmp_path / "items.parquet"
    pl.DataFrame(
        {"item_id": [1, 1, 2, 3], "rater_id": [10, 11, 10, 10], "Q_overall": ["No", "Yes", "No", "No"]}
    ).write_parquet(ratings)
    texts = {"context": ["USER: a", "USER: b"], "response": ["x", "y"], "safety_gold": ["Yes", "No"]}
    pl.DataFrame({"item_id": [2, 1], **texts}).write_parquet(items)
    made = read(ratings, items)
    assert made.rows.select("item_id", "rater_id", "answer", "context", "response", "safety_gold").rows() == [
        ("1", "10", "No", "USER: b", "y", "No"),
        ("1", "11", "Yes", "USER: b", "y", "No"),
        ("2", "10", "No", "USER: a", "x", "Yes"),
    ]
    assert quarantine(made) == [("unknown_item", "record 4: item_id '3' is not in the file of conversations")]
    pl.DataFrame({"item_id": [1, 1], **texts}).write_parquet(items)
    with pytest.raises(SourceError, match=r"items\.parquet: item_id '1' occurs more than once"):
        read(ratings, items)


def test_the_key_holds_the_content_of_both_files_and_not_where_they_are(tmp_path: Path) -> None:
    def key(folder: str, response: str) -> object:
        (tmp_path / folder).mkdir(exist_ok=True)
        ratings = write(tmp_path / folder / "a.csv", {}, without=("context", "response"))
        items = tmp_path / folder / "items.csv"
        items.write_text(f"item_id,context,response\n7,hello,{response}\n")
        return canonical(stage_of(ratings, items).values)

    assert key("one", "x") == key("two", "x")
    assert key("one", "x") != key("two", "y")


def test_the_built_in_conversations_are_unrated_and_half_of_them_unsafe() -> None:
    made = read(conversations.RATINGS, conversations.ITEMS)
    assert made.quarantined.is_empty()
    assert made.rows.height == 8 * 6
    assert made.rows["group"].n_unique() == made.rows["rater_id"].n_unique() == 6
    assert made.rows["answer"].null_count() == made.rows.height
    assert made.rows.unique("item_id")["safety_gold"].sort().to_list() == ["No"] * 4 + ["Yes"] * 4


def test_dices_350_is_43_050_ratings_by_123_people_of_30_groups(shared_data: Path) -> None:
    folder = shared_data / "dices"
    made = read(folder / "ratings_350.parquet", folder / "items_350.parquet")
    assert made.quarantined.is_empty()
    counted = made.rows.select(pl.col("item_id", "rater_id", "group").n_unique(), rows=pl.len()).row(0)
    assert counted == (350, 123, 30, 43_050)
    answers = dict(made.rows["answer"].value_counts().iter_rows())
    assert answers == {"No": 26_292, "Yes": 14_064, "Unsure": 2_694}


def test_dices_990_in_parquet_does_not_say_who_the_raters_are(shared_data: Path) -> None:
    folder = shared_data / "dices"
    made = read(folder / "ratings_990.parquet", folder / "items_990.parquet", limit=10)
    assert made.rows["item_id"].n_unique() == 10
    assert made.rows["group"].unique().to_list() == ["unknown"]
    assert made.rows.select("rater_id", *AXES, "safety_gold").null_count().row(0) == (made.rows.height,) * 5

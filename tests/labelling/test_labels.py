"""Labels in a flow: the queue, the wait, rows with their answers; what a build saw is in its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_answers import QUESTIONS, TEXTS, answer_all, flow, published, rows_of, source, tone
from pydantic import ValidationError

import normloom as nl
from normloom.core.errors import ConfigError, UsageError, WaitingError
from normloom.core.rows.ids import row_id
from normloom.labelling.answers import Answer, now
from normloom.labelling.book import LabelBook
from normloom.labelling.queue import open_queue, queues
from normloom.lineage.trace import trace
from normloom.planning.changes import summarise
from normloom.store.store import Store
from normloom.testing import made
from normloom.testing.toy import runner, words_stage


def test_a_build_waits_until_all_rows_are_answered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(WaitingError, match="4 rows wait for answers: normloom label tone"):
        made("toy", [flow()], store)
    queue = open_queue(store, "tone")
    first = queue.next("ada")[0]
    queue.record(first, {"polite": "yes", "strength": 7}, "ada")
    with pytest.raises(WaitingError, match="3 rows wait for answers: normloom label tone"):
        made("toy", [flow()], store)
    assert answer_all(queue, "no") == 3
    tables = made("toy", [flow()], store)
    rows = rows_of(store, tables["answered_tone"])
    told = {row["text"]: (row["polite"], row["strength"], row["answers"]) for row in rows.iter_rows(named=True)}
    assert told.pop(first.shown["text"]) == ("yes", 7.0, 1)
    assert told == dict.fromkeys(set(TEXTS) - {first.shown["text"]}, ("no", None, 1))
    assert {"score", "asked"} <= set(rows.columns)


def test_answers_are_parents_of_the_rows_that_they_made_and_rows_are_parents_of_their_answers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer_all(published(store))
    tables = made("toy", [flow()], store)
    texts, asked, given, done = (
        rows_of(store, tables[name]) for name in ("texts", "ask_tone", "labels_tone", "answered_tone")
    )
    assert set(asked["asked"]) == set(texts["row_id"])
    assert given["parents"].explode().to_list() == given["asked"].to_list()
    parents = {row["asked"]: row["row_id"] for row in given.iter_rows(named=True)}
    queued = dict(asked.select("asked", "row_id").iter_rows())
    assert [row["parents"] for row in done.iter_rows(named=True)] == [
        [queued[asked], parents[asked]] for asked in done["asked"]
    ]
    traced = trace(store, done["row_id"][0])
    assert {row.stage for row in traced.rows} >= {"texts", "labels_tone", "ask_tone", "answered_tone"}


def test_a_new_answer_makes_what_reads_it_again_and_why_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = published(store)
    answer_all(queue)
    before = made("toy", [flow()], store)
    assert made("toy", [flow()], store) == before
    queue.record(queue.listed()[0], {"polite": "no"}, "ada")
    changes = nl.why(flow(), "labels_tone", store=tmp_path, name="toy")
    assert summarise(changes).startswith("arguments.labels.content")
    after = made("toy", [flow()], store)
    assert after["ask_tone"] == before["ask_tone"]
    assert (after["labels_tone"].key, after["answered_tone"].key) != (
        before["labels_tone"].key,
        before["answered_tone"].key,
    )
    assert after["labels_tone"].dropped_by == {"corrected": 1}
    assert rows_of(store, after["answered_tone"])["polite"].to_list().count("no") == 1


def test_answers_to_what_is_shown_no_more_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = published(store).rows
    book = LabelBook(store, "tone")
    for row in rows.iter_rows(named=True):
        shown = "0" * 16 if row["text"] == TEXTS[0] else row["shown"]
        said = Answer(row=row["asked"], question="polite", value="yes", who="ada", when=now(), tool="t", shown=shown)
        book.add([said])
    with pytest.raises(WaitingError, match="1 row waits"):
        made("toy", [flow()], store)
    assert [row.shown["text"] for row in open_queue(store, "tone").next("ada", 9)] == [TEXTS[0]]


def test_what_people_do_not_see_may_change(tmp_path: Path) -> None:
    store = Store(tmp_path)
    known = nl.table(pl.DataFrame({"row": [1, 2], "text": TEXTS[:2]}), name="texts")
    answer_all(published(store, known))
    queue = published(store, known, order="group", by="row")
    assert queue.progress().waiting == 0


def test_several_people_agree_by_majority_and_a_tie_is_no_answer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = published(store, people=2)
    answer_all(queue, "yes", "ada")
    assert (queue.progress().answered, queue.progress().waiting) == (0, 4)
    for place, row in enumerate(queue.next("bob", 4)):
        queue.record(row, {"polite": "no" if place == 0 else "yes", "strength": 4}, "bob")
    assert queue.progress().by_person == {"ada": 4, "bob": 4}
    table = made("toy", [flow(people=2)], store)["answered_tone"]
    rows = rows_of(store, table)
    assert sorted(rows["polite"].to_list(), key=str) == [None, "yes", "yes", "yes"]
    assert rows["strength"].to_list() == [4.0] * 4
    assert rows["answers"].to_list() == [2] * 4


def test_enough_rows_are_enough(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = published(store, take=3, need=2)
    assert (queue.progress().rows, queue.progress().waiting) == (3, 2)
    for row in queue.next("ada", 2):
        queue.record(row, {"polite": "yes"}, "ada")
    table = made("toy", [flow(take=3, need=2)], store)["answered_tone"]
    assert (table.count("rows"), table.dropped_by) == (2, {"unanswered": 1})


def test_answers_of_models_are_labels_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = published(store)
    said = [
        Answer(row=row, question="polite", value="no", who="gpt", when=now(), tool="t", origin="model")
        for row in queue.rows["asked"]
    ]
    with pytest.raises(ValueError, match="these are the answers of a person"):
        queue.book.add(said)
    LabelBook(store, "tone", "model").add(said)
    assert queue.progress().waiting == 4
    with pytest.raises(WaitingError, match="4 rows wait"):
        made("toy", [flow()], store)
    table = made("toy", [tone(origin="model")], store)["labels_tone"]
    assert set(rows_of(store, table)["origin"]) == {"model"}


def test_answers_that_do_not_fit_the_questions_are_quarantined(tmp_path: Path) -> None:
    store = Store(tmp_path)
    book = LabelBook(store, "tone")
    for question, value in (("polite", "maybe"), ("strength", 11.0), ("mood", "x"), ("polite", "yes")):
        row = row_id("toy", "words", [], len(book.answers()))
        book.add([Answer(row=row, question=question, value=value, who="ada", when=now(), tool="t")])
    table = made("toy", [tone()], store, quarantine_budget=1.0)["labels_tone"]
    assert (table.count("rows"), table.quarantined_by) == (1, {"schema": 3})
    reasons = store.scan(table.ref, "quarantined").collect()["reason"].to_list()
    assert "question 'polite': expected one of yes, no, got 'maybe'" in reasons


def test_a_table_without_answers_is_empty(tmp_path: Path) -> None:
    assert made("toy", [tone()], Store(tmp_path))["labels_tone"].count("rows") == 0


def test_queues_are_listed(tmp_path: Path) -> None:
    published(Store(tmp_path))
    [queue] = nl.queues(store=tmp_path)
    assert (queue.name, queue.system, list(queue.asks.questions)) == ("tone", "toy", list(QUESTIONS))
    assert nl.open_queue("tone", store=tmp_path).progress().rows == 4
    with pytest.raises(UsageError, match=r"no queue for labels 'mood' in .*; available: tone"):
        nl.open_queue("mood", store=tmp_path)
    assert queues(Store(tmp_path / "empty")) == []


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="labels 'To ne'"):
        nl.labels("To ne", QUESTIONS)
    with pytest.raises(ConfigError, match="options must differ"):
        nl.labels("tone", {"polite": ["yes", "yes"]})
    with pytest.raises(ConfigError, match="at least one question"):
        nl.labels("tone", {})
    with pytest.raises(ConfigError, match="order 'margin' needs column `by`"):
        nl.ask(source(), tone(), show=["text"], order="margin")
    with pytest.raises(ConfigError, match=r"must be nl\.labels"):
        nl.ask(source(), source(), show=["text"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"low": 0}, "a range needs both low and high"),
        ({"low": 3, "high": 1}, "low must be less"),
        ({"low": 0, "high": 1, "options": ("a",)}, "options or a range, not both"),
        ({"several": True}, "several answers need options"),
        ({"options": ("a", "")}, "none may be empty"),
    ],
)
def test_a_question_of_two_kinds_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        nl.Question(**given)


@pytest.mark.parametrize("value", ["many", None, True, 11, -1])
def test_a_number_out_of_its_range_is_no_answer(value: object) -> None:
    with pytest.raises(UsageError, match="expected a number from 0 to 10, got"):
        nl.Question(low=0, high=10).fitting(value)


@pytest.mark.parametrize(
    ("asking", "why"),
    [
        ({"show": ["words"]}, "unknown column 'words' in show; available: text, score"),
        ({"show": ["text"], "order": "margin", "by": "p"}, "unknown column 'p'"),
        ({"show": ["text"], "about": "id"}, "unknown column 'id' in about"),
        ({"show": ["text"], "order": "margin", "by": "text"}, "column 'text' must hold numbers"),
    ],
)
def test_a_queue_over_wrong_columns_is_refused(tmp_path: Path, asking: dict[str, object], why: str) -> None:
    with pytest.raises(nl.NormloomError, match=why):
        made("toy", [nl.ask(source(), tone(), **asking)], Store(tmp_path))  # type: ignore[arg-type]  # wrong on purpose


def test_answers_may_be_about_a_row_upstream(tmp_path: Path) -> None:
    store = Store(tmp_path)

    @nl.step(makes={"text": pl.String, "origin_row": pl.String})
    def shout(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select("row_id", pl.col("text").str.to_uppercase(), origin_row="row_id")

    asked = nl.ask(shout(source()), tone(), show=["text"], order="given", about="origin_row")
    with pytest.raises(nl.WaitingError):
        made("toy", [asked], store)
    queue = open_queue(store, "tone")
    table = store.current("toy", "texts")
    assert table
    assert queue.rows["asked"].to_list() == rows_of(store, table)["row_id"].to_list()
    assert answer_all(queue) == 4
    assert rows_of(store, made("toy", [asked], store)["answered_tone"])["polite"].to_list() == ["yes"] * 4


def test_a_table_that_is_only_named_like_a_queue_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runner(store).run(replace(words_stage("a"), name="ask_words"), [], [])
    assert queues(store) == []
    with pytest.raises(UsageError, match=r"no queue for labels 'words' in .*; available: none; normloom build"):
        nl.open_queue("words", store=tmp_path)

"""The record of answers: append-only, hashed, on disks and in object storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hand_answers import published
from hypothesis import given
from hypothesis import strategies as st
from s3_server import s3_server

from normloom.core.errors import StoreError, UsageError
from normloom.core.rows.ids import row_id
from normloom.labelling.answers import Answer, as_text, content_of, standing
from normloom.labelling.book import LabelBook, books, label_names
from normloom.labelling.questions import Question
from normloom.labelling.seen import Labels
from normloom.labelling.take_out import answers_about
from normloom.store.store import Store

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def said(value: str | None, *, row: str = "r1", who: str = "ada", minute: int = 0, undoes: str | None = None) -> Answer:
    when = NOON + timedelta(minutes=minute)
    return Answer(row=row, question="polite", value=value, who=who, when=when, tool="test", undoes=undoes)


def test_answers_are_read_as_they_were_added_by_several_writers(tmp_path: Path) -> None:
    one, other = LabelBook(Store(tmp_path), "tone"), LabelBook(Store(tmp_path), "tone")
    answers = [said("yes"), said("no", row="r2"), said("no", minute=3, who="bob")]
    one.add(answers[:1])
    other.add(answers[1:])
    assert one.answers() == other.answers() == answers
    assert (label_names(one.store), list(one.damage())) == (["tone"], [])


def test_a_file_that_was_changed_or_taken_away_is_found(tmp_path: Path) -> None:
    book = LabelBook(Store(tmp_path), "tone")
    paths = [book.add([said("yes", row=f"r{number}")]) for number in range(3)]
    assert paths[0].parent == tmp_path / ".labels" / "tone" / "person"
    paths[1].write_text(paths[1].read_text().replace('"yes"', '"no"'))
    assert list(book.damage()) == [(paths[1].name, "was changed since it was written; restore it from a backup")]
    with pytest.raises(StoreError, match=f"{paths[1].name}: was changed since it was written"):
        LabelBook(book.store, "tone").answers()
    paths[1].write_bytes(b"{}")
    assert "cannot be read" in next(book.damage())[1]
    paths[0].unlink()
    paths[1].unlink()
    assert list(book.damage()) == [(paths[1].name, f"is missing, and {paths[2].name} follows it")]


def test_answers_in_object_storage() -> None:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        store = Store(f"s3://{server.bucket}/labels")
        book = LabelBook(store, "tone")
        assert book.answers() == []
        rows = [row_id("toy", "words", [], number) for number in range(3)]
        for row in rows:
            book.add([said("yes", row=row)])
        assert [answer.row for answer in LabelBook(store, "tone").answers()] == rows
        assert [one.name for one in books(store)] == ["tone", "tone"]
        queue = published(store)
        asked = queue.next("ada")[0]
        queue.record(asked, {"polite": "yes"}, "ada")
        assert (queue.progress().waiting, len(queue.undo("ada")), queue.progress().waiting) == (3, 1, 4)
        assert list(book.damage()) == []
        assert len(book.take_out(lambda answer: answer.row == rows[0])) == 1
        assert {*rows} & {answer.row for answer in LabelBook(store, "tone").answers()} == {*rows[1:]}


def test_a_correction_counts_and_taking_it_back_brings_the_answer_before() -> None:
    first, second = said("yes"), said("no", minute=1)
    undo = said(None, minute=2, undoes=second.id)
    assert standing([second, first]).current == [second]
    assert standing([first, second]).corrected == {first.id: second.id}
    assert standing([first, second, undo]).current == [first]
    assert standing([first, second, undo, said(None, minute=3, undoes=first.id)]).current == []


@given(st.permutations([said(value, who=who, minute=place) for place, (value, who) in enumerate(
    [("yes", "ada"), ("no", "ada"), ("yes", "bob"), ("no", "cy"), ("yes", "cy")])]))  # fmt: skip
def test_the_order_of_reading_changes_nothing(answers: list[Answer]) -> None:
    state = standing([*answers, answers[0]])
    assert {answer.who: answer.value for answer in state.current} == {"ada": "no", "bob": "yes", "cy": "yes"}
    assert content_of(answers) == content_of(sorted(answers, key=lambda one: one.who))
    assert len(state.current) + len(state.corrected) == len(answers)


def test_labels_carry_what_was_seen(tmp_path: Path) -> None:
    from hand_answers import QUESTIONS

    from normloom.labelling.questions import LabelSchema

    store = Store(tmp_path)
    labels = Labels(name="tone", asks=LabelSchema.of(QUESTIONS))
    assert labels.seen(store) == labels
    LabelBook(store, "tone").add([said("yes")])
    assert labels.seen(store).content == content_of([said("yes")])
    assert labels.seen(store).answers == (said("yes"),)


@pytest.mark.parametrize(
    ("question", "value", "made"),
    [
        (Question(options=("yes", "no")), "yes", "yes"),
        (Question(options=("a", "b", "c"), several=True), ["c", "a"], ("a", "c")),
        (Question(options=("a", "b"), several=True), [], ()),
        (Question(options=("a", "b"), several=True), "b", ("b",)),
        (Question(low=1, high=5), "3", 3.0),
        (Question(), "words", "words"),
    ],
)
def test_values_that_fit(question: Question, value: object, made: object) -> None:
    assert question.fitting(value) == made


@pytest.mark.parametrize(
    ("question", "value"),
    [
        (Question(options=("yes", "no")), "Yes"),
        (Question(options=("yes", "no")), ["yes"]),
        (Question(options=("a", "b"), several=True), ["a", "a"]),
        (Question(low=1, high=5), 6),
        (Question(low=1, high=5), True),
        (Question(low=1, high=5), "nan"),
        (Question(), " "),
        (Question(), None),
    ],
)
def test_values_that_do_not(question: Question, value: object) -> None:
    with pytest.raises(UsageError, match="expected"):
        question.fitting(value)


def test_answers_about_some_rows_of_a_file_are_taken_out_and_the_others_stay(tmp_path: Path) -> None:
    book = LabelBook(Store(tmp_path), "tone")
    path = book.add([said("yes"), said("no", row="r2")])
    assert (answers_about(path, {"r1"}), answers_about(path.with_name("gone.json"), {"r1"})) == (1, 0)
    assert book.take_out(lambda answer: answer.row == "r1") == [path]
    assert [answer.row for answer in LabelBook(book.store, "tone").answers()] == ["r2"]
    assert list(book.damage()) == []


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (7.5, "7.5"), (7.0, "7"), ("yes", "yes"), (("a", "é"), '["a", "é"]')]
)
def test_a_value_is_told_as_one_text(value: str | float | tuple[str, ...] | None, text: str) -> None:
    assert as_text(value) == text

"""Import and export: Label Studio, Argilla and CSV, forth and back, and files as those tools write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hand_answers import published, source

import normloom as nl
from normloom.core.errors import UsageError
from normloom.labelling.answers import Answer, now, standing
from normloom.labelling.book import LabelBook
from normloom.labelling.exchange.files import Form, export_answers, import_answers
from normloom.labelling.queue import LabelQueue, open_queue
from normloom.store.store import Store
from normloom.testing import made


@pytest.fixture
def queue(tmp_path: Path) -> LabelQueue:
    return published(Store(tmp_path / "store"))


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def current(store: Store, origin: Any = "person") -> list[tuple[Any, ...]]:
    found = standing(LabelBook(store, "tone", origin).answers()).current
    return sorted((one.row, one.question, one.value, one.who, one.shown) for one in found)


@pytest.mark.parametrize(("form", "suffix"), [("label-studio", "json"), ("argilla", "json"), ("csv", "csv")])
def test_what_is_exported_comes_back_in_another_store(
    queue: LabelQueue, tmp_path: Path, form: Form, suffix: str
) -> None:
    rows = queue.next("ada", 9)
    queue.record(rows[0], {"polite": "yes", "strength": 7.5}, "ada@example.org")
    queue.record(rows[0], {"polite": "no"}, "bob")
    said = Answer(row=rows[1].row, question="polite", value="no", who="gpt", when=now(), tool="t", origin="model",
                  shown=rows[1].digest)  # fmt: skip
    LabelBook(queue.store, "tone", "model").add([said])
    path = tmp_path / f"out.{suffix}"
    assert export_answers(queue, path, form) == 4
    with pytest.raises(UsageError, match="exists already"):
        export_answers(queue, path, form)
    other = published(Store(tmp_path / "other"))
    assert import_answers(other, path).new == 4
    assert import_answers(other, path).new == 0  # nothing is added twice
    assert import_answers(queue, path).new == 0
    assert current(other.store) == current(queue.store)
    assert current(other.store, "model") == current(queue.store, "model")
    assert {answer.tool for answer in other.book.answers()} == {form}


def test_tasks_as_label_studio_exports_them(queue: LabelQueue, tmp_path: Path) -> None:
    row = queue.next("ada")[0]
    result = [
        {"id": "a1", "from_name": "polite", "to_name": "text", "type": "choices", "value": {"choices": ["yes"]}},
        {"id": "a2", "from_name": "strength", "to_name": "text", "type": "rating", "value": {"rating": 4}},
    ]
    done = {"id": 7, "completed_by": 12, "was_cancelled": False, "lead_time": 3.2, "result": result}
    tasks = [
        {
            "id": 1,
            "data": {"text": "x", "normloom_row": row.row, "normloom_shown": row.digest},
            "annotations": [
                {**done, "created_at": "2026-11-27T10:00:00.000000Z", "updated_at": "2026-11-27T10:05:00.000000Z"},
                {**done, "completed_by": 13, "was_cancelled": True},
            ],
            "predictions": [{"model_version": "gpt-5", "score": 0.9, "result": result[:1]}],
        }
    ]
    assert import_answers(queue, written(tmp_path / "tasks.json", tasks)).new == 3
    [first, second] = queue.book.answers()
    assert (first.value, first.who, second.value) == ("yes", "12", 4.0)
    assert first.when == datetime(2026, 11, 27, 10, 5, tzinfo=UTC)
    assert queue.progress().answered == 1
    assert [one.who for one in LabelBook(queue.store, "tone", "model").answers()] == ["gpt-5"]


def test_records_as_argilla_exports_them(queue: LabelQueue, tmp_path: Path) -> None:
    row = queue.next("ada")[0]
    record = {
        "id": row.row,
        "status": "completed",
        "fields": {"text": "x"},
        "metadata": {},
        "suggestions": {"polite": {"value": "no", "score": 0.4, "agent": "gpt-5"}},
        "responses": {"polite": [{"value": "yes", "user_id": "6d5f"}], "strength": [{"value": 3, "user_id": "6d5f"}]},
        "vectors": {},
        "_server_id": "1",
    }
    assert import_answers(queue, written(tmp_path / "records.json", [record])).new == 3
    assert [(one.value, one.who, one.shown) for one in queue.book.answers()] == [
        ("yes", "6d5f", None),
        (3.0, "6d5f", None),
    ]


def test_a_table_that_a_person_filled_in(queue: LabelQueue, tmp_path: Path) -> None:
    rows = queue.next("ada", 2)
    text = f'\ufeffrow_id,text,polite,strength\n{rows[0].row},"a\nb",yes,\n{rows[1].row},c,,\n'
    path = written(tmp_path / "rows.csv", text)
    with pytest.raises(UsageError, match="line 3: the file does not say who answered: give --who NAME"):
        import_answers(queue, path)
    assert import_answers(queue, path, who="ada").new == 1
    assert queue.progress().by_person == {"ada": 1}


def test_a_table_that_a_spreadsheet_saved_with_semicolons(queue: LabelQueue, tmp_path: Path) -> None:
    [row] = queue.next("ada", 1)
    text = f"\ufeffrow_id;polite;strength\r\n{row.row};yes;3\r\nother;no;\r\n"
    made = import_answers(queue, written(tmp_path / "rows.csv", text), who="ada")
    assert made == (3, ["other"])
    assert queue.progress().by_person == {"ada": 1}


def test_a_file_that_cannot_be_read_is_named_with_what_to_do(queue: LabelQueue, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rows\.csv does not exist: check the name"):
        import_answers(queue, tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_bytes("row_id,polite\nr,naïve".encode("cp1252"))
    with pytest.raises(UsageError, match=r"rows\.csv is not UTF-8 text: save it as UTF-8"):
        import_answers(queue, tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        import_answers(queue, tmp_path)
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory; name a file"):
        export_answers(queue, tmp_path / "no folder" / "rows.csv", "csv")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not JSON"),
        ([{"x": 1}], "neither a list of Label Studio tasks nor of Argilla records"),
        ([{"data": {"text": "x"}, "annotations": []}], "task 1: no row id; expected a field 'normloom_row'"),
        (
            [{"data": {"normloom_row": "r"}, "annotations": [{"result": [{"from_name": "polite", "type": "brush"}]}]}],
            "task 1: a result of type 'brush'",
        ),
        (
            [{"fields": {}, "id": "r", "responses": {"mood": [{"value": "x", "user_id": "u"}]}}],
            "unknown question 'mood'",
        ),
        ([{"fields": {}, "id": "r", "responses": {"polite": [{"value": "x", "user_id": "u"}]}}], "record 1: question"),
    ],
)
def test_a_file_with_what_does_not_fit_is_refused_as_a_whole(
    queue: LabelQueue, tmp_path: Path, content: Any, why: str
) -> None:
    if isinstance(content, list) and "fields" in content[0]:
        good = {"fields": {}, "id": "r0", "responses": {"polite": [{"value": "yes", "user_id": "u"}]}}
        content = [good, *content]
        why = why.replace("record 1", "record 2")
    with pytest.raises(UsageError, match=why):
        import_answers(queue, written(tmp_path / "bad.json", content))
    assert queue.book.answers() == []


def test_a_table_without_the_columns_it_needs_is_refused(queue: LabelQueue, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"expected a header with row_id and a question \(polite, strength\), got a, b"
    ):
        import_answers(queue, written(tmp_path / "bad.csv", "a,b\n1,2\n"))
    with pytest.raises(UsageError, match="line 2: 'noon' is not an ISO 8601 time"):
        import_answers(queue, written(tmp_path / "when.csv", "row_id,polite,when\nr,yes,noon\n"), who="ada")


@pytest.mark.parametrize(
    ("name", "form", "content", "why"),
    [
        ("a.json", "argilla", {}, "expected a JSON list of Argilla records"),
        ("b.json", "argilla", ["x"], "record 1: expected an object"),
        ("c.json", "label-studio", {}, "expected a JSON list of Label Studio tasks"),
        ("d.json", "label-studio", [{"data": 1}], "task 1: data: input should be a valid object"),
        ("d.json", "label-studio", ["x"], "task 1: expected an object"),
        (
            "d.json",
            "label-studio",
            [{"data": {"normloom_row": "r"}, "annotations": [7]}],
            "task 1: annotations.0: input should be a valid object$",
        ),
        ("b.json", "argilla", [{"id": "r", "responses": [1]}], "record 1: responses: input should be a valid object"),
        (
            "b.json",
            "argilla",
            [{"id": "r", "responses": {"polite": "yes"}}],
            "record 1: responses.polite: input should",
        ),
        (
            "e.csv",
            None,
            "row_id,polite,origin\nr,yes,robot\n",
            "line 2: expected a row_id, and as origin person or model",
        ),
        ("f.csv", None, "row_id,polite\n,yes\n", "line 2: expected a row_id"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_place(
    queue: LabelQueue, tmp_path: Path, name: str, form: Form | None, content: Any, why: str
) -> None:
    with pytest.raises(UsageError, match=rf"{name}: {why}"):
        import_answers(queue, written(tmp_path / name, content), form)
    assert current(queue.store) == []


def asking(store: Store, questions: dict[str, nl.Question]) -> LabelQueue:
    with pytest.raises(nl.WaitingError):
        made("toy", [nl.ask(source(), nl.labels("tone", questions), show=["text"])], store)
    return open_queue(store, "tone")


def test_several_options_are_a_list_in_a_cell(tmp_path: Path) -> None:
    asked = {"kinds": nl.Question(options=("a", "b"), several=True), "why": nl.Question(optional=True)}
    queue = asking(Store(tmp_path / "store"), asked)
    [row] = queue.next("ada", 1)
    queue.record(row, {"kinds": ["b", "a"], "why": "[not a list"}, "ada")
    path = tmp_path / "answers.csv"
    export_answers(queue, path, "csv")
    assert '"[""a"", ""b""]"' in path.read_text()
    other = asking(Store(tmp_path / "other"), asked)
    assert import_answers(other, path).new == 2
    assert current(other.store) == [
        (row.row, "kinds", ("a", "b"), "ada", row.digest),
        (row.row, "why", "[not a list", "ada", row.digest),
    ]


@pytest.mark.parametrize(("form", "suffix"), [("label-studio", "json"), ("argilla", "json"), ("csv", "csv")])
def test_numbers_and_texts_come_back_to_the_last_digit(tmp_path: Path, form: Form, suffix: str) -> None:
    asked = {"value": nl.Question(low=0, high=1e9), "why": nl.Question()}
    queue = asking(Store(tmp_path / "store"), asked)
    [row] = queue.next("ada", 1)
    queue.record(row, {"value": 1_234_567.25, "why": '["x"]'}, "ada")
    path = tmp_path / f"answers.{suffix}"
    export_answers(queue, path, form)
    other = asking(Store(tmp_path / "other"), asked)
    assert import_answers(other, path).new == 2
    assert [one[2] for one in current(other.store)] == [1_234_567.25, '["x"]']


def test_what_is_shown_of_a_row_may_be_long(queue: LabelQueue, tmp_path: Path) -> None:
    [row] = queue.next("ada", 1)
    path = written(tmp_path / "rows.csv", f"row_id,text,polite\n{row.row},{'x' * 200_000},yes\n")
    assert import_answers(queue, path, who="ada").new == 1


def test_answers_to_a_question_that_is_asked_no_more_are_not_exported(queue: LabelQueue, tmp_path: Path) -> None:
    row = queue.next("ada")[0].row
    said = {"row": row, "value": "yes", "who": "ada", "when": now(), "tool": "t"}
    queue.book.add([Answer.model_validate({**said, "question": name}) for name in ("polite", "old")])
    export_answers(queue, tmp_path / "out.json", "argilla")
    [record] = [one for one in json.loads((tmp_path / "out.json").read_text()) if one["responses"]]
    assert list(record["responses"]) == ["polite"]

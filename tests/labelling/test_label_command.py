"""`normloom label` and `normloom labels`, as people and scripts use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hand_answers import TEXTS, published, source
from typer.testing import CliRunner

import normloom as nl
from normloom.cli.app import app
from normloom.core.errors import UsageError
from normloom.labelling.queue import queues
from normloom.store.store import Store
from normloom.testing import made


class Label:
    def __init__(self, store: Path) -> None:
        self.store = store

    def __call__(self, *arguments: str, typed: str = "", who: str = "ada") -> str:
        given = ["label", "tone", *arguments, "--store", str(self.store), "--who", who]
        result = CliRunner().invoke(app, given, input=typed, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str, who: str = "ada") -> Any:
        return json.loads(self(*arguments, "--json", who=who))


@pytest.fixture
def label(tmp_path: Path) -> Label:
    published(Store(tmp_path))
    return Label(tmp_path)


def test_rows_are_answered_one_after_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asked = nl.labels("tone", {"polite": ["yes", "no"]}, guidelines="Would your aunt\x1b[31m mind?")
    with pytest.raises(nl.WaitingError):
        made("toy", [nl.ask(source(), asked, show=["text"])], store)
    said = Label(tmp_path)(typed="1\nmaybe\n2\n:u\n2\n:g\n:s\nno\n2\n")
    assert "Would your aunt\\x1b[31m mind?" in said
    assert all(f"text  {text}" in said for text in TEXTS)
    assert "question 'polite': expected one of yes, no, got 'maybe'" in said
    assert "Undid the last answer." in said
    assert "4 of 4 rows answered (ada 4); 0 wait." in said or "3 of 4 rows answered (ada 3); 1 wait." in said
    rows = Label(tmp_path).json("list")
    assert [row["answers"].get("polite") for row in rows][:2] == ["yes", "no"]


def test_scripts_answer_by_id(label: Label) -> None:
    first = label.json("next")
    assert (first["place"], first["answers"]) == (1, {})
    done = label.json("answer", first["row"][:8], "polite=yes", "strength=7")
    assert done["answers"] == {"polite": "yes", "strength": 7.0}
    assert label.json("next")["place"] == 2
    assert label.json("next", who="bob")["place"] == 2  # one person is enough
    label("answer", first["row"], "polite=no")
    assert label.json("list")[0]["answers"] == {"polite": "no", "strength": 7.0}
    assert [one["value"] for one in label.json("undo")] == ["no"]
    assert label.json("list")[0]["answers"]["polite"] == "yes"
    assert len(label.json("undo")) == 2
    assert label.json("undo") == []
    assert label.json("progress")["waiting"] == 4
    assert "Please" not in label("list").splitlines()[0]


def test_queues_are_listed_with_progress(label: Label, tmp_path: Path) -> None:
    label("answer", label.json("next")["row"], "polite=yes")
    shown = CliRunner().invoke(app, ["labels", "--store", str(tmp_path)], catch_exceptions=False).stdout
    assert shown.split("\n")[1].split() == ["tone", "toy", "4", "1", "3", "ada", "1"]
    [told] = json.loads(CliRunner().invoke(app, ["labels", "--store", str(tmp_path), "--json"]).stdout)
    assert (told["rows"], told["answered"], told["waiting"], told["by_person"]) == (4, 1, 3, {"ada": 1})
    empty = CliRunner().invoke(app, ["labels", "--store", str(tmp_path / "none")]).stdout
    assert empty.startswith("No queues.")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("answer",), "give the row and the answer"),
        (("answer", "zz", "polite=yes"), "'zz' names no row of the queue 'tone'"),
        (("answer", "", "polite=yes"), "'' names no row"),
        (("answer", "ROW", "yes"), "expected QUESTION=ANSWER, with polite, strength"),
        (("answer", "ROW", "strength=11"), "question 'strength': expected a number from 0 to 10, got '11'"),
        (("answer", "ROW"), "no answer given"),
        (("list", "x"), "list takes no further values, got 1"),
        (("import",), "import takes one file, got 0"),
        (("export", "rows.json"), "give --format label-studio or --format argilla"),
        (("--json",), "--json needs an action"),
    ],
)
def test_what_cannot_be_done_is_said(label: Label, arguments: tuple[str, ...], why: str) -> None:
    row = label.json("next")["row"]
    with pytest.raises(UsageError, match=why):
        label(*(row if one == "ROW" else one for one in arguments))
    assert label.json("progress")["by_person"] == {}


def test_progress_tells_the_agreement_of_two_people(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = source([f"text {number}" for number in range(6)], [0.5] * 6)
    queue = published(store, rows, people=2)
    for place, row in enumerate(queue.next("ada", 6)):
        queue.record(row, {"polite": "yes" if place < 3 else "no"}, "ada")
        queue.record(row, {"polite": "yes" if place < 2 else "no"}, "bob")
    label = Label(tmp_path)
    assert label.json("progress")["alpha"] == {"polite": pytest.approx(1 - (2 / 12) / (70 / 132)), "strength": None}
    assert "Agreement on polite: alpha 0.686, 6 rows" in label("progress")


def test_answers_are_exported_and_imported(label: Label, tmp_path: Path) -> None:
    row = label.json("next")["row"]
    label("answer", row, "polite=yes")
    path = tmp_path / "rows.csv"
    assert label.json("export", str(path)) == {"rows_written": 4}
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line.replace("yes", "no").replace("ada", "bob") for line in lines[1:])]))
    assert label("import", str(path)).strip() == "1 new answer."
    path.write_text("\n".join([lines[0], lines[1].replace(row, "f" * len(row))]))
    assert f"does not ask about 1 of the rows, such as {'f' * len(row)}." in label("import", str(path))
    assert label("export", str(tmp_path / "again.csv")).strip() == "4 rows written."
    with pytest.raises(UsageError, match="does not exist: check the name"):
        label("import", str(tmp_path / "none.csv"))


def test_one_question_needs_no_name_and_several_options_are_given_one_by_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kinds = nl.labels("tone", {"kinds": nl.Question(options=("a", "b", "c"), several=True, optional=True)})
    with pytest.raises(nl.WaitingError):
        made("toy", [nl.ask(source(), kinds, show=["text"])], store)
    label = Label(tmp_path)
    done = label.json("answer", label.json("next")["row"], "c", "kinds=a")
    assert done["answers"] == {"kinds": ["a", "c"]}
    said = label(typed="1 3\n\n2\n")
    assert "(several: 1 3)" in said
    assert "Nothing was answered: the row is skipped." in said
    answers = [row["answers"] for row in label.json("list")]
    assert answers[:2] == [{"kinds": ["a", "c"]}, {"kinds": ["a", "c"]}]
    assert [1 for one in answers if one == {"kinds": ["b"]}]


def test_what_a_person_answered_before_is_shown_and_a_conversation_turn_by_turn(tmp_path: Path) -> None:
    store = Store(tmp_path)
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    rows = nl.table(pl.DataFrame({"text": ["a"], "turns": [turns]}))
    asked = nl.labels("tone", {"polite": ["yes", "no"], "why": nl.Question(optional=True)})
    with pytest.raises(nl.WaitingError):
        made("toy", [nl.ask(rows, asked, show=["text", "turns"])], store)
    label = Label(tmp_path)
    label("answer", label.json("next")["row"], "why=so")
    said = label(typed=":g\n")
    assert "No guidelines." in said
    assert "answered before: why so" in said
    assert "user: Hello?" in said
    assert "assistant: Hi." in said


def test_two_systems_that_ask_under_one_name_are_told_apart(label: Label, tmp_path: Path) -> None:
    made_here = Store(tmp_path)
    with pytest.raises(nl.WaitingError):
        made("other", [nl.ask(source(), nl.labels("tone", {"polite": ["yes", "no"]}), show=["text"])], made_here)
    with pytest.raises(UsageError, match="several systems ask for labels 'tone': name one of other, toy with --system"):
        label("list")
    assert label.json("list", "--system", "other")
    assert [repr(queue) for queue in queues(made_here)] == ["LabelQueue('tone', 'other')", "LabelQueue('tone', 'toy')"]

"""What becomes of answers: taken back with their rows, purged, verified, kept by gc."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hand_answers import TEXTS, answer_all, flow, published, rows_of
from typer.testing import CliRunner

import normloom as nl
from normloom.cli.app import app
from normloom.core.errors import StoreError
from normloom.history.links import broken_links
from normloom.history.removal.forget import ask, forget
from normloom.history.removal.purge import purge
from normloom.labelling.book import LabelBook
from normloom.store.store import Store
from normloom.testing import made
from normloom.testing.builds import build_id, built


def answered(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    answer_all(published(store))
    built(store, flow(), build=build_id(1), system="toy")
    return store


def row_of(store: Store, text: str) -> str:
    table = store.current("toy", "texts")
    assert table
    found: str = rows_of(store, table).filter(text=text)["row_id"][0]
    return found


def test_answers_about_rows_that_were_taken_back_count_no_more_and_are_purged(tmp_path: Path) -> None:
    store = answered(tmp_path)
    row = row_of(store, TEXTS[0])
    asked = ask(store, [row])
    held = {one.table.stage for one in asked.reach.held}
    assert {"texts", "ask_tone", "labels_tone", "answered_tone"} <= held
    forget(store, asked, reason="withdrawn")
    book = LabelBook(store, "tone")
    assert {answer.row for answer in book.answers(forgotten=True)} - {answer.row for answer in book.answers()} == {row}
    tables = made("toy", [flow()], store)
    assert tables["answered_tone"].count("rows") == 3
    built(store, flow(), build=build_id(2), system="toy")
    record = purge(store)
    assert record.found == []
    assert [name for name in record.removed if name.startswith(".labels/tone/person/")] != []
    assert row not in {answer.row for answer in LabelBook(store, "tone").answers(forgotten=True)}
    assert len(LabelBook(store, "tone").answers()) == 3
    assert list(LabelBook(store, "tone").damage()) == []  # what a purge took away is no damage


def test_answers_that_quote_a_forgotten_text_go_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asks = {"why": nl.Question()}
    secret = "Ada lives in 7 Mill Lane, Ely"

    def told() -> list[nl.Stage]:
        rows = nl.table([{"text": secret}, {"text": "something else"}], name="texts")
        return [nl.ask(rows, nl.labels("why", asks), show=["text"])]

    with pytest.raises(nl.WaitingError):
        made("toy", told(), store)
    queue = nl.open_queue("why", store=tmp_path)
    for row in queue.next("ada", 2):
        queue.record(row, {"why": f"Like: {secret}!"}, "ada")
    built(store, *told(), build=build_id(1), system="toy")
    forget(store, ask(store, texts=[secret]), reason="withdrawn")
    with pytest.raises(StoreError, match="no build has replaced"):
        purge(store, texts=[secret])
    record = purge(store, texts=[secret], also_newest=True)
    assert record.found == []
    assert LabelBook(store, "why").answers(forgotten=True) == []


def test_verify_finds_answers_that_were_changed(tmp_path: Path) -> None:
    store = answered(tmp_path)
    assert list(broken_links(store)) == []
    path = min(LabelBook(store, "tone").folder.iterdir())
    path.write_text(path.read_text().replace('"yes"', '"no"'))
    result = CliRunner().invoke(app, ["verify", "--store", str(tmp_path), "--json"])
    [found] = json.loads(result.stdout)["damaged"]
    assert (result.exit_code, found["system"], found["stage"], found["file"]) == (1, ".labels", "tone", path.name)
    assert found["problem"] == "was changed since it was written; restore it from a backup"


def test_gc_keeps_answers(tmp_path: Path) -> None:
    store = answered(tmp_path)
    before = sorted(LabelBook(store, "tone").folder.iterdir())
    result = CliRunner().invoke(app, ["gc", "--store", str(tmp_path), "--keep", "1", "--yes"], catch_exceptions=False)
    assert result.exit_code == 0
    assert sorted(LabelBook(store, "tone").folder.iterdir()) == before

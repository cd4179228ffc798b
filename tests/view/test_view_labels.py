"""Forty rows are answered in a real browser by keyboard, and the next build uses the answers."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
from browsing import CHROMIUM, ask, chromium
from playwright.sync_api import Page, expect

import normloom as nl
from normloom.core.errors import WaitingError
from normloom.core.stage import Stage
from normloom.labelling.questions import Question
from normloom.labelling.queue import open_queue
from normloom.store.store import Store
from normloom.testing import made
from normloom.view import ViewServer

ROWS = 40
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def flow(**questions: Question | list[str]) -> Stage:
    texts = [HOSTILE, *(f"text {number}" for number in range(1, ROWS))]
    rows = nl.table(pl.DataFrame({"text": texts}), name="texts")
    labels = nl.labels(
        "tone", questions or {"polite": ["yes", "no"]}, guidelines="Polite is what you would say to a guest."
    )
    return nl.ask(rows, labels, show=["text"], order="random")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to answer with")
def test_forty_rows_by_keyboard_and_the_next_build_uses_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(WaitingError, match="40 rows wait for answers: normloom label tone"):
        made("toy", [flow()], store)
    with chromium() as browser, ViewServer(store, who="ada") as server:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.url)
        page.get_by_role("link", name="Labels", exact=True).click()
        expect(page.locator("#progress")).to_have_text("0 of 40 rows answered, 40 wait")
        expect(page.locator(".guidelines")).to_contain_text("Polite is what you would say to a guest.")
        polite = answered(page, ROWS)
        expect(page.locator("#done")).to_have_text(re.compile("Nothing is left to answer"))
        page.keyboard.press("u")  # the last was a mistake
        expect(page.locator("#progress")).to_have_text("39 of 40 rows answered, 1 wait")
        page.keyboard.press("2" if polite["last"] == "yes" else "1")
        polite[polite["shown"]] = "no" if polite["last"] == "yes" else "yes"
        expect(page.locator("#done")).to_have_text(re.compile("Nothing is left to answer"))
        assert page.title() == "Normloom"
        assert complaints == []
    table = made("toy", [flow()], store)["answered_tone"]
    rows = store.scan(table.ref).collect()
    told = {name: value for name, value in polite.items() if name not in ("last", "shown")}
    assert dict(rows.select("text", "polite").iter_rows()) == told
    assert open_queue(store, "tone").progress().by_person == {"ada": ROWS}


def answered(page: Page, rows: int) -> dict[str, str]:
    """Answer rows, politely if their text has an even length; return what was answered to each text."""
    said: dict[str, str] = {}
    for number in range(rows):
        expect(page.locator("#progress")).to_have_text(f"{number} of 40 rows answered, {40 - number} wait")
        text = page.locator(".labelling .step dd").first.inner_text()
        said[text] = "yes" if len(text) % 2 == 0 else "no"
        said |= {"last": said[text], "shown": text}
        page.keyboard.press("1" if said[text] == "yes" else "2")
    return said


def test_answers_that_are_none_are_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(WaitingError):
        made("toy", [flow(polite=["yes", "no"], strength=Question(low=0, high=10, optional=True))], store)
    named = {"name": "tone", "system": "toy"}
    with ViewServer(store, who="ada") as server:
        row = ask(server, "/api/queue/next", named)[1]["row"]
        assert isinstance(row, dict)
        given = {**named, "row": row["row"], "digest": row["digest"]}
        for values, why in (
            ({"polite": "perhaps"}, "question 'polite': expected one of yes, no, got 'perhaps'"),
            ({"polite": "yes", "strength": 11}, "expected a number from 0 to 10"),
            ({"rude": "yes"}, "unknown question 'rude'"),
            ({}, "no answer given"),
        ):
            status, said = ask(server, "/api/queue/answer", {**given, "values": values})
            assert (status, why in str(said["error"])) == (422, True)
        stale = {**given, "digest": "0" * 16, "values": {"polite": "yes"}}
        assert "has changed since it was shown" in str(ask(server, "/api/queue/answer", stale)[1]["error"])
        assert open_queue(store, "tone").progress().answered == 0
        assert ask(server, "/api/queue/answer", {**given, "values": {"polite": "yes", "strength": "7"}})[0] == 200
        assert open_queue(store, "tone").progress().by_person == {"ada": 1}


def test_a_page_that_only_reads_takes_no_answer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(WaitingError):
        made("toy", [flow()], store)
    named = {"name": "tone", "system": "toy"}
    with ViewServer(store) as server:
        row = ask(server, "/api/queue/next", named)[1]["row"]
        assert isinstance(row, dict)
        given = {**named, "row": row["row"], "digest": row["digest"], "values": {"polite": "yes"}}
        for path, body in (("/api/queue/answer", given), ("/api/queue/undo", named)):
            status, said = ask(server, path, body)
            assert (status, said["error"]) == (
                422,
                "this page only reads: start it with normloom view --label to answer",
            )
    assert open_queue(store, "tone").progress().answered == 0

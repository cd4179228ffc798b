"""The analyst's page of PersoPilot in a real browser, with what the embedded model says of the candidates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsing import CHROMIUM, CONTRAST, ask, chromium
from persona_loop import loop, people, rows
from playwright.sync_api import Page, expect

from normloom.labelling.queue import open_queue
from normloom.schemas.people.analyst_tables import DECISIONS
from normloom.store.store import Store
from normloom.view import ViewServer

SMOL = "{engine: transformers, model: SmolLM2-135M-Instruct}"
SHORT = ("loop.ask=3", "assist.sampling={temperature: 0, max_tokens: 24}", "assist.facts=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people(tmp_path_factory.mktemp("people") / "source")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to decide with")
def test_an_analyst_decides_by_keyboard_and_the_next_build_has_learned(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path)
    loop(store, folder, *SHORT, assistant=SMOL)
    with chromium() as browser, ViewServer(store, who="ada") as server:
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened(page, server)
        expect(page.locator("#known")).to_have_text("4 of 9 users are known, 2 “would come”.")
        expect(page.locator(".learning svg")).to_have_count(2)
        said = decided(page, "1", "Enter", "2")
        expect(page.locator("#done")).to_contain_text("No user is left to decide")
        expect(page.locator("#since")).to_have_text(re.compile("^Since the build: 3 decided"))
        last = list(said)[-1]
        page.keyboard.press("u")
        expect(page.locator("#candidate h3")).to_contain_text(last)
        said |= decided(page, "1")
        expect(page.locator("#done")).to_be_visible()
        eve = page.locator("#offers tbody tr").filter(has_text="eve")
        expect(eve).to_contain_text("confidence 1.00; like ann; tents")
        eve.get_by_role("button", name="declined").click()
        expect(eve).to_contain_text("declined, with the next build")
        assert page.evaluate(CONTRAST) == []
        after = loop(store, folder, SHORT[0], assistant="null")  # while the page is open; nobody else is asked
        known = rows(store, after, "learned")
        assert dict(known.filter(told_by="analyst").select("username", "accepted").iter_rows()) == said
        assert known.filter(told_by="reply").select("username", "accepted").rows() == [("eve", False)]
        page.reload()
        expect(page.locator("#known")).to_have_text(f"8 of 9 users are known, {2 + sum(said.values())} “would come”.")
        expect(page.locator(".learning .key.answers")).to_have_count(2)
        for scheme in ("light", "dark"):
            phone(page, scheme)
        assert complaints == []


def opened(page: Page, server: ViewServer) -> None:
    page.goto(server.url)
    page.get_by_role("link", name="Analyst", exact=True).click()
    expect(page.locator("#candidate")).to_be_visible()


def decided(page: Page, *keys: str) -> dict[str, bool]:
    """Press a key for one candidate after another; return whether each was accepted."""
    said: dict[str, bool] = {}
    for key in keys:
        name = page.locator("#candidate h3").inner_text().split()[0]
        expect(page.locator("#candidate")).to_contain_text(
            re.compile("Assistant: (no score could be read|[01]\\.[0-9])")
        )
        suggested = page.locator(".option[aria-pressed=true][data-side]").get_attribute("data-side")
        said[name] = suggested == "accept" if key == "Enter" else key == "1"
        page.keyboard.press(key)
        expect(page.locator("#candidate h3").filter(has_text=name)).to_have_count(0)
    return said


def phone(page: Page, scheme: str) -> None:
    """The page fits a phone and can be read in both themes."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # light or dark
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 390


def test_a_page_that_only_reads_decides_nothing(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path)
    loop(store, folder)
    with ViewServer(store) as server:
        [row] = open_queue(store, DECISIONS).next("ada")
        given = {"name": DECISIONS, "system": "persopilot", "row": row.row, "digest": row.digest}
        status, said = ask(server, "/api/queue/answer", {**given, "values": {"side": "accept"}})
        assert (status, str(said["error"]).startswith("this page only reads")) == (422, True)
        status, said = ask(server, "/api/analyst/next", {"system": "nobody", "task": "Camping"})
        assert (status, said["error"]) == (422, f"unknown system 'nobody' in {tmp_path}; available: persopilot")
    assert open_queue(store, DECISIONS).progress().answered == 0

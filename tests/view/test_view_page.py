"""The page of rows as a person uses it, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import CHROMIUM, CONTRAST, chromium
from playwright.sync_api import Browser, Page, expect
from view_store import HOSTILE, view_store

from normloom.cli.commands.reading.view import view
from normloom.core.errors import UsageError
from normloom.settings.faces.about import About
from normloom.view import ViewServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    with ViewServer(view_store(tmp_path_factory.mktemp("page") / "store")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page; what its scripts complain about fails the test."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    title = page.title()
    page.close()
    assert complaints == []
    assert title == "Normloom"  # no text of a row was run


def opened(page: Page, server: ViewServer) -> Page:
    page.goto(server.url)
    expect(page.locator("main tbody tr").first).to_be_visible()
    return page


def test_by_keyboard_from_the_list_to_a_row_s_history_and_back(page: Page, server: ViewServer) -> None:
    opened(page, server)
    expect(page.locator("#found")).to_have_text("1–50 of 62 rows")
    page.keyboard.press("/")
    page.keyboard.type("WORD 59")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_have_text("1–1 of 1 rows")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    steps = page.locator("#row .step h3")
    expect(steps).to_have_count(3)
    assert [re.match(r"[a-z]+", text)[0] for text in steps.all_inner_texts()] == ["words", "draw", "publish"]  # type: ignore[index]  # matches
    candidates = page.locator("#row .candidate")
    expect(candidates).to_have_count(2)
    assert "dropped in publish: lower score" in candidates.first.inner_text()
    page.get_by_role("button", name="What was derived from it").click()
    expect(page.locator("#row")).to_contain_text("Derived from this row: 0 rows.")
    page.keyboard.press("Escape")
    expect(page.locator("#row")).to_be_hidden()
    expect(page.locator("main tbody tr.here")).to_be_focused()


def test_a_command_may_name_the_table_that_is_opened(page: Page, server: ViewServer) -> None:
    page.goto(f"{server.url}&system=toy&stage=draw")
    expect(page.locator("#side a[aria-current=page]")).to_contain_text("draw")
    with pytest.raises(UsageError, match="toy has no table 'drawn': normloom tables toy lists them"):
        view("toy", table="drawn", store=server.store.root)
    with pytest.raises(UsageError, match="--table needs a system"):
        view(table="draw", store=server.store.root)


def test_text_of_rows_is_text(page: Page, server: ViewServer) -> None:
    opened(page, server)
    page.get_by_role("link", name=re.compile("words")).click()
    page.get_by_role("searchbox").fill("onerror")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_have_text("1–1 of 1 rows")
    expect(page.locator("main tbody")).to_contain_text(HOSTILE)
    page.locator("main tbody tr").click()
    expect(page.locator("#row .step")).to_contain_text(HOSTILE)
    assert page.locator("main img, #row img, main script").count() == 0


def test_filters_sorting_and_pages_are_in_the_address(page: Page, server: ViewServer) -> None:
    opened(page, server)
    page.get_by_role("button", name="Later").click()
    expect(page.locator("#found")).to_have_text("51–62 of 62 rows")
    page.get_by_role("button", name="word", exact=True).click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("word")
    page.get_by_label("Column", exact=True).select_option("word")
    page.get_by_label("Comparison").select_option("contains")
    page.get_by_label("Value").fill("word 5")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page.locator("#found")).to_have_text("1–11 of 11 rows")
    page.reload()
    expect(page.locator("#found")).to_have_text("1–11 of 11 rows")
    page.go_back()
    expect(page.locator("#found")).to_have_text("1–50 of 62 rows")
    page.go_forward()
    page.get_by_role("button", name="Remove the filter on word").click()
    expect(page.locator("#found")).to_have_text("1–50 of 62 rows")


def test_sql_and_its_errors(page: Page, server: ViewServer) -> None:
    opened(page, server)
    page.get_by_role("link", name="SQL", exact=True).click()
    page.get_by_label("SQL").fill("SELECT draw, count(*) AS n FROM toy_draw GROUP BY draw ORDER BY draw")
    page.keyboard.press("Control+Enter")
    expect(page.locator("main tbody tr")).to_have_count(3)


def test_two_builds_row_by_row(page: Page, server: ViewServer) -> None:
    opened(page, server)
    page.get_by_role("link", name="Compare builds", exact=True).click()
    page.get_by_role("button", name="words", exact=True).click()
    expect(page.locator("#differing .step")).to_have_count(1)
    expect(page.locator("#differing ins").filter(has_text="added later")).to_be_visible()
    page.get_by_role("button", name="publish", exact=True).click()
    expect(page.locator("#differing .step")).to_have_count(50)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_dark_and_on_a_phone(browser: Browser, server: ViewServer, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, server)
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Tables").click()
    expect(page.get_by_role("link", name=re.compile("draw"))).to_be_visible()
    page.get_by_role("link", name=re.compile("draw")).click()
    page.locator("main tbody tr").first.click()
    expect(page.locator("#row .step.asked")).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_texts_of_a_system_that_warns_are_blurred_until_asked_for(page: Page, tmp_path: Path) -> None:
    assert About.of("savacu").warning
    store = view_store(tmp_path / "store")
    (tmp_path / "store" / "toy").rename(tmp_path / "store" / "savacu")
    for manifest in (tmp_path / "store" / "savacu").glob("*/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"toy"', '"savacu"'))
    with ViewServer(store) as server:
        opened(page, server)
        text = page.locator("main td.text > div").first
        assert "blur" in text.evaluate("node => getComputedStyle(node).filter")
        page.keyboard.press("b")
        assert text.evaluate("node => getComputedStyle(node).filter") == "none"
        page.locator("main tbody tr").first.click()
        prose = page.locator("#row .prose").first
        assert prose.evaluate("node => getComputedStyle(node).filter") == "none"
        page.get_by_role("button", name="Blur texts").click()
        assert "blur" in prose.evaluate("node => getComputedStyle(node).filter")


def test_without_the_token_it_says_what_to_open(browser: Browser, server: ViewServer) -> None:
    page = browser.new_page()
    page.goto(server.url.split("#")[0])
    expect(page.locator("main")).to_have_text(re.compile("^the token is missing or wrong: open the address"))
    page.close()

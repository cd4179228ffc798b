"""The report's page, looked at with a browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from browsing import CHROMIUM, ENOUGH, chromium
from playwright.sync_api import Browser, Dialog, Page, ViewportSize, expect
from report_tables import GENERATOR, LABEL, TWO, hand_made

from normloom.report.material import find_material
from normloom.report.page import page as drawn
from normloom.report.report import report
from normloom.store.store import Store
from normloom.testing.builds import built

WINDOW: ViewportSize = {"width": 1280, "height": 900}
PLOTTED = {
    "rows": 1,
    "labels": 2,
    "acceptance": 3,
    "margins": 1,
    "splits": 1,
    "duplicates": 1,
    "figures": 10,
    "work": 1,
}
LEGIBLE = 4.5  # the contrast that WCAG 2.1 asks of text

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with")

Theme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    store = Store(place / "store")
    built(store, *hand_made(), build=TWO)
    path = place / "report.html"
    path.write_text(drawn(report(find_material(store, "toy"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def wait_for_plots(page: Page) -> None:
    expect(page.locator("main")).to_have_attribute("aria-busy", "false")


@contextmanager
def opened(browser: Browser, file: Path, theme: Theme) -> Iterator[tuple[Page, list[str]]]:
    """Open the page; the list fills with complaints of its scripts, dialogs and requests for anything else."""
    wrong: list[str] = []
    context = browser.new_context(viewport=WINDOW, color_scheme=theme, offline=True)
    page = context.new_page()
    page.set_default_timeout(ENOUGH)
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def refuse(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((file.as_uri(), "data:", "blob:")) else wrong.append(request.url)
        ),
    )
    page.goto(file.as_uri())
    wait_for_plots(page)
    yield page, wrong
    context.close()


@pytest.fixture(scope="module")
def shared_page(browser: Browser, file: Path) -> Iterator[tuple[Page, list[str]]]:
    """One dark page for all tests that leave it as they found it: drawing it takes seconds."""
    with opened(browser, file, "dark") as found:
        yield found


@pytest.fixture
def page(shared_page: tuple[Page, list[str]]) -> Iterator[Page]:
    page, wrong = shared_page
    yield page
    page.emulate_media(media="screen", color_scheme="dark")
    page.set_viewport_size(WINDOW)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    wait_for_plots(page)
    assert wrong == []


@pytest.fixture
def own_page(browser: Browser, file: Path) -> Iterator[Page]:
    """A light page of the test's own, which may choose a theme for good."""
    with opened(browser, file, "light") as (page, wrong):
        yield page
    assert wrong == []


def test_every_section_draws_its_plots(page: Page) -> None:
    for section, plots in PLOTTED.items():
        expect(page.locator(f"#{section} .plot > .plot-container")).to_have_count(plots)
        for place in range(plots):
            box = page.locator(f"#{section} .plot").nth(place).locator("svg.main-svg").first.bounding_box()
            assert box is not None
            assert (box["width"] > 300, box["height"] > 100) == (True, True)
    assert page.locator("#figures .barlayer .point").count() >= 9
    assert page.locator("#rows .barlayer .point").count() >= 9


def test_texts_of_tables_are_shown_as_they_are(page: Page) -> None:
    labels = page.locator("#labels .ytick text").all_text_contents()
    assert LABEL.partition("/")[2] in labels
    names = page.locator("#acceptance .ytick text").all_text_contents()
    assert f"round 0, {GENERATOR}" in names
    expect(page.get_by_role("cell", name=GENERATOR, exact=True)).to_be_visible()


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour `rgb(r, g, b)`, as WCAG 2.1 defines it."""
    parts = [float(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def colour(page: Page, selector: str, kind: str) -> str:
    found: str = page.locator(selector).first.evaluate(f"each => getComputedStyle(each)['{kind}']")
    return found


def legible(page: Page) -> str:
    """Require that texts stand out, those of plots too, and return the colour behind them."""
    card = colour(page, ".card", "backgroundColor")
    for text in ("h2", "td", "th", "p.whole"):
        behind = card if text in {"td", "th"} else colour(page, "body", "backgroundColor")
        assert contrast(colour(page, text, "color"), behind) >= LEGIBLE, text
    for text in (".ytick text", ".legendtext"):
        assert contrast(colour(page, text, "fill"), card) >= LEGIBLE, text
    return card


def test_light_and_dark_are_legible_and_the_button_changes_them(own_page: Page) -> None:
    for press, theme in enumerate(("light", "dark", "light")):
        if press:
            own_page.get_by_role("button", name="Light or dark").click()
            wait_for_plots(own_page)
        assert (luminance(legible(own_page)) > 0.5) == (theme == "light")


def test_it_follows_the_system_s_theme(page: Page) -> None:
    legible(page)
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    wait_for_plots(page)
    legible(page)


def test_it_prints_whole_on_white_with_what_is_folded(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("details:not([open])").count() == 0
    expect(page.get_by_role("cell", name="one item only")).to_be_visible()
    assert luminance(colour(page, "body", "backgroundColor")) > 0.9
    for plot in page.locator(".plot").all():
        width = plot.evaluate("each => [each.clientWidth, each.querySelector('svg.main-svg').clientWidth]")
        assert 500 < width[1] <= width[0] <= 700
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen", color_scheme="dark")
    wait_for_plots(page)
    assert page.locator("details[open]").count() == 0
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_a_narrow_window_needs_no_scrolling_to_the_side(page: Page) -> None:
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")

"""Make the screenshots of docs/lineage.md, docs/view.md and docs/persopilot.md again: builds, looked at with a browser.

    python docs/screenshots.py                 # writes docs/images/*.png, in some five minutes
    python docs/screenshots.py --only chat     # those of one page

Needs a Chromium that is installed (`--chromium PATH` where it is not found) and the package playwright. The builds
have a Prefect server, a store and a home of their own, which are gone afterwards.
"""

# INP001: a script, in no package; S603: it starts programs of ours and a browser; T201: it speaks to a terminal.
# ruff: noqa: INP001, S603, T201

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from normloom.flows.persopilot.flow import PERSOPILOT
from normloom.flows.persopilot.flow import chat as open_chat
from normloom.labelling.queue import open_queue
from normloom.prefect.server import prefect_server
from normloom.schemas.people.analyst_tables import DECISIONS
from normloom.settings.config import load_profile, validated
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing import made
from normloom.view import ViewServer

IMAGES = Path(__file__).parent / "images"
SCRIPTED = "{engine: scripted, model: scripted, options: {latency_s: 0.5}}"
PROFILE = f"""
resources: {{actors: 1, threads: 1}}
systems:
  savacu:
    models:
      embedder: {SCRIPTED}
      classifier: {SCRIPTED}
      expander: {SCRIPTED}
      generators: {{qwen: {SCRIPTED}, mistral: {SCRIPTED}}}
      judge: {SCRIPTED}
    classify: {{route: embedding}}
    expand: {{dimensions: [safety], minimum: 1, quota: 1}}
    rounds: 1
"""
CHANGE = "judge.threshold=0.6"  # the second build makes again what is judged, and what depends on it


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    pictures = {"lineage": lineage, "analyst": analyst, "chat": chat}
    parser.add_argument("--only", choices=pictures, help="lineage: also that of docs/view.md")
    asked = parser.parse_args()
    for name, taken in pictures.items():
        if asked.only in {None, name}:
            taken(asked.chromium)


def lineage(chromium: str) -> None:
    """Build twice, then take the pictures of docs/lineage.md and docs/view.md."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["PREFECT_HOME"] = place
        with prefect_server() as api:
            build(Path(place), api)
            build(Path(place), api, "--set", CHANGE)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                context = browser.new_context(
                    viewport={"width": 1400, "height": 900}, color_scheme="light", base_url=api.removesuffix("/api")
                )
                take(context.new_page())
                look(browser.new_page(viewport={"width": 1400, "height": 850}), Path(place) / "store")
                browser.close()


def build(place: Path, api: str, *options: str) -> None:
    """Build SaVaCu with scripted models against the server."""
    (place / "scripted.yaml").write_text(PROFILE)
    command = ["build", "savacu", "--profile", "scripted.yaml", "--limit", "24", *options]
    subprocess.run(
        [sys.executable, "-m", "normloom", *command],
        cwd=place,
        env={**os.environ, "PREFECT_API_URL": api, "PYTHONPATH": str(IMAGES.parents[1])},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def take(page: Page) -> None:
    """Take the pictures of docs/lineage.md."""
    page.goto("/v2/runs")
    page.get_by_text("Completed").first.wait_for()
    page.locator("a[href*='/runs/flow-run/']").last.click()  # the first build: nothing of it is reused
    page.locator("canvas").first.wait_for()
    page.locator("button[aria-haspopup=dialog]").click()
    for option in ("Dependency grid", "Hide artifacts", "Hide events"):
        page.get_by_label(option).check()
    page.get_by_role("tab", name="Logs").click()  # anywhere outside closes the menu
    page.wait_for_timeout(5000)  # the graph moves to its place
    shoot(page, "run")
    page.goto("/v2/artifacts/key/savacu-judge-0")
    page.locator("a[href*='/artifacts/artifact/']").first.wait_for()
    shoot(page, "history")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.locator("svg.flowchart").first.wait_for()
    page.wait_for_timeout(2000)
    shoot(page, "table")


def look(page: Page, store: Path) -> None:
    """Take the picture of docs/view.md: a row with its history."""
    with ViewServer(Store(store)) as server:
        page.goto(f"{server.url}&system=savacu")
        page.locator("main tbody tr").first.wait_for()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.locator("#row .candidate").first.wait_for()
        page.keyboard.press("b")
        page.evaluate("document.getElementById('store').textContent = 'store'")
        page.locator("#row .candidate").first.scroll_into_view_if_needed()
        shoot(page, "view")


def analyst(chromium: str) -> None:
    """Take the picture of the analyst's page in docs/persopilot.md: the embedded model assists, half is decided."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        store = Store(Path(place) / "store")

        def build_it() -> None:
            ends = stages_for("persopilot", profile="local", assignments=["loop.ask=6"], store=store).ends
            made("persopilot", ends, store)

        build_it()
        queue = open_queue(store, DECISIONS)
        for row in queue.next("ada", 8):
            queue.record(row, {"side": "accept" if row.shown["predicted"] else "decline"}, "ada")
        build_it()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 950}, color_scheme="light")
        with ViewServer(store, who="ada") as server:
            page.goto(server.url)
            page.get_by_role("link", name="Analyst", exact=True).click()
            page.get_by_role("button", name="Book club").click()
            page.locator("#candidate").wait_for()
            page.evaluate("document.getElementById('store').textContent = 'store'")
            shoot(page, "analyst")
        browser.close()


def chat(chromium: str) -> None:
    """Take the picture of docs/persopilot.md: somebody talks with the embedded model over the built-in people."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        store = Store(Path(place) / "store")
        ends = stages_for("persopilot", profile="local", assignments=["models.assistant=null"], store=store).ends
        made("persopilot", ends, store)
        config, _ = validated(PERSOPILOT.config, load_profile("local", "persopilot"))
        talk = open_chat(config, store, "ada")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 850}, color_scheme="light")
        with ViewServer(store, chat=talk) as server:
            page.goto(f"{server.url}&view=chat")
            for number, said in enumerate(("We got two dogs last year.", "I love hiking in the hills."), start=1):
                page.get_by_role("textbox", name="Message").fill(said)
                page.keyboard.press("Enter")
                page.locator(".message.reply .prose").nth(number - 1).wait_for(timeout=400_000)
            page.get_by_text("Why?").nth(3).click()
            page.get_by_role("textbox", name="Message").focus()
            page.evaluate("document.getElementById('store').textContent = 'store'")
            page.locator("main").evaluate("main => main.scrollTo(0, 0)")
            shoot(page, "chat")
        browser.close()
        talk.close()


def shoot(page: Page, name: str) -> None:
    """Write one picture."""
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

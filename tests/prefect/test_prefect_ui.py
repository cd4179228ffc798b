"""What a person sees of a build in Prefect's UI, looked at with a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from browsing import CHROMIUM, ENOUGH, chromium
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, expect
from prefect_home import prefect_home
from scripted_profile import write_profile

from normloom.cli.forms import offer_stages
from normloom.lineage.training import Curve, TrainingRecord
from normloom.prefect.pages.lineage_page import Lineage, lineage_graph
from normloom.prefect.pages.product_page import training
from normloom.prefect.server import prefect_server, using_server
from normloom.prefect.serving.schedules import served

ROOT = Path(__file__).parents[2]
# Pictures that Prefect does not ship, and the task run of a page that a flow run left.
UI_S_OWN_FAILURES = (".ico", ".png", ".svg", "/api/task_runs/filter")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look with")

ATTEMPTS = 5
# Three frames a second: without a GPU the CPU draws the run's graph for each.
FEW_FRAMES = """
window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 300);
window.cancelAnimationFrame = clearTimeout;
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server with its UI."""

    url: str
    home: Path

    def ask(self, path: str, **body: object) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def run_id(self, build: str) -> str:
        [run] = self.ask("/flow_runs/filter", flow_runs={"name": {"any_": [build]}})
        return str(run["id"])

    def builds(self, store: Path, words: str) -> tuple[str, str]:
        """Build the toy system twice in a process of its own and return the builds' names."""
        program = f"import toy_build; toy_build.main({str(store)!r}, {words!r}, builds=2)"
        *_, first, second = self.python("-c", program).split()
        return first, second

    def python(self, *arguments: str) -> str:
        """Run Python as a client of the server and return what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment(self.home / "client", PREFECT_API_URL=f"{self.url}/api", PREFECT_LOGGING_LEVEL="INFO"),
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment(home: Path, **settings: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**others, **quiet, "PREFECT_HOME": str(home), "PYTHONPATH": paths, **settings}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = prefect_home(tmp_path_factory.mktemp("home") / "prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        with prefect_server(log=home / "server.log") as api:
            yield Server(api.removesuffix("/api"), home)


@pytest.fixture(scope="module")
def builds(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The names of two builds of the same: the first makes everything, the second reuses it."""
    return server.builds(tmp_path_factory.mktemp("store"), "abcde")


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[BrowserContext]:
    """A browser whose pages share what they load."""
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": 1280, "height": 420}, base_url=server.url, reduced_motion="reduce"
        )
        context.add_init_script(FEW_FRAMES)
        context.set_default_timeout(ENOUGH)
        yield context


@pytest.fixture(scope="module")
def tab(browser: BrowserContext, server: Server) -> tuple[Page, list[str]]:
    """A page that all tests use in turn, since a new one would compile the UI's scripts again, and its complaints.

    Those are what its scripts write as errors, unless it is that they reach no other server.
    """
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        elsewhere = url.startswith("http") and not url.startswith(server.url)
        if message.type == "error" and not elsewhere and not url.endswith(UI_S_OWN_FAILURES):
            complaints.append(f"{message.text}: {url}")

    page = browser.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


@pytest.fixture
def page(tab: tuple[Page, list[str]]) -> Iterator[Page]:
    """The page, empty; what its scripts complain about fails the test."""
    page, complaints = tab
    complaints.clear()
    yield page
    page.goto("about:blank")
    assert complaints == []


def open_run(page: Page, server: Server, build: str) -> dict[str, set[str]]:
    """Open the page of a run and return the graph that it draws: each stage and those it follows."""
    with page.expect_response(re.compile(r"/graph-v2$")) as answer:
        page.goto(f"/v2/runs/flow-run/{server.run_id(build)}")
    nodes = dict(answer.value.json()["nodes"])
    expect(page.locator("canvas")).to_be_visible()
    return {node["label"]: {nodes[parent["id"]]["label"] for parent in node["parents"]} for node in nodes.values()}


def open_tab(page: Page, name: str) -> Locator:
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel", name=name, exact=True)


def node_labels(graph: Locator) -> list[str]:
    labels = graph.locator(".nodeLabel")
    expect(labels.first).to_be_visible()  # the drawing stands before its texts
    return [" ".join(text.split()) for text in labels.all_inner_texts()]


def cells(table: Locator) -> list[list[str]]:
    script = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    found: list[list[str]] = table.locator("tbody tr").evaluate_all(script)
    return found


def test_the_run_has_name_state_tags_log_and_the_graph_of_the_stages(
    page: Page, server: Server, builds: tuple[str, str]
) -> None:
    graph = open_run(page, server, builds[0])
    assert graph == {
        "words": set(),
        "echo": {"words"},
        "echo_again": {"words"},
        "both": {"echo", "echo_again"},
    }
    header = page.locator("main")
    expect(header.get_by_text(builds[0]).first).to_be_visible()
    for text in ("Completed", "4 Task runs", "profile:test", "toy"):
        expect(header.get_by_text(text, exact=True).first).to_be_visible()
    expect(open_tab(page, "Task Runs")).to_contain_text("(4 Completed)")
    wanted = (
        "echo: the actor echoes a, b",
        "echo: part 0, rows 0 to 2: 1 out, 1 dropped, 0 quarantined",
        "words: published, 5 rows, 0 dropped, 0 quarantined",
    )
    for _ in range(ATTEMPTS):  # Prefect sends logs in batches, and the page of a run that has ended reads them once
        log = open_tab(page, "Logs")
        expect(log).to_contain_text("words: starts")
        found = lines_of(log)
        if all(line in found for line in wanted):
            break
        page.reload()
    assert [line for line in wanted if line not in found] == []
    see_progress(page)


def see_progress(page: Page) -> None:
    """Look from the page of a run that has ended at the artifact of its progress."""
    open_tab(page, "Artifacts").get_by_text("toy-build-progress", exact=True).click()
    expect(page.get_by_text("4 of 4 tables, 100% of the work").first).to_be_visible()


def lines_of(log: Locator) -> str:
    """Read a log from its beginning to its end: only the lines in view are part of the page."""
    read = [log.inner_text()]
    view = log.get_by_role("log")
    while view.evaluate("view => view.scrollTop + view.clientHeight < view.scrollHeight - 1"):
        view.evaluate("view => view.scrollBy(0, view.clientHeight / 2)")
        log.page.wait_for_timeout(100)
        read.append(log.inner_text())
    return "\n".join(read)


def open_artifact(page: Page, server: Server, build: str, key: str) -> Locator:
    """Find the page that a build left of a table the way a person does: run, artifact, its version of this run."""
    open_run(page, server, build)
    open_tab(page, "Artifacts").get_by_text(key, exact=True).click()
    page.locator(f"//a[normalize-space()='{build}']/preceding::a[contains(@href, '/artifacts/artifact/')][1]").click()
    graph = page.locator("svg.flowchart").first
    expect(graph).to_be_visible()
    return graph


def test_a_table_s_page_accounts_for_its_rows_and_draws_its_lineage_which_leads_to_other_tables(
    page: Page, server: Server, builds: tuple[str, str]
) -> None:
    graph = open_artifact(page, server, builds[0], "toy-echo")
    expect(page.get_by_text("3 rows, 1 dropped, 1 quarantined; from build")).to_be_visible()
    expect(page.locator("p", has_text="Made by this build. A stage of toy.")).to_be_visible()
    labels = node_labels(graph)
    assert labels == ["words 5 rows", "echo 3 rows", "echo_again 5 rows", "both 8 rows"]
    assert cells(page.get_by_role("table").nth(2)) == [["both", "8", "made by this build"]]
    assert cells(page.get_by_role("table").first) == [
        ["in", "5", ""],
        ["attempted", "5", "= out + dropped + quarantined"],
        ["out", "3", ""],
        ["dropped", "1", "asked for 1"],
        ["quarantined", "1", "asked 1"],
    ]
    graph.locator(".node", has_text="words").click()
    expect(page.get_by_role("heading", name="words", exact=True)).to_be_visible()
    expect(page.get_by_text("No table: the flow starts here.")).to_be_visible()
    page.get_by_role("link", name="echo_again", exact=True).click()
    expect(page.get_by_role("heading", name="echo_again", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=builds[0], exact=True)).to_be_visible()


def test_a_second_build_shows_what_it_reused(page: Page, server: Server, builds: tuple[str, str]) -> None:
    open_run(page, server, builds[1])
    tasks = open_tab(page, "Task Runs")
    expect(tasks).to_contain_text("(4 Reused)")
    for stage in ("words", "echo", "echo_again", "both"):
        expect(tasks.get_by_role("link", name=stage, exact=True)).to_be_visible()
    see_progress(page)


def test_the_build_s_page_lists_all_tables(page: Page, server: Server, builds: tuple[str, str]) -> None:
    open_artifact(page, server, builds[1], "toy")
    stages = cells(page.get_by_role("table").first)
    assert [row[0] for row in stages] == ["words", "echo", "echo_again", "both"]
    assert {row[1] for row in stages} == {f"reused from build {builds[0]}"}
    page.get_by_role("link", name="both", exact=True).first.click()
    expect(page.get_by_role("heading", name="both", exact=True)).to_be_visible()


def register(server: Server, parameters: dict[str, object]) -> UUID:
    with using_server(f"{server.url}/api"):
        deployment = served("savacu", parameters, None, active=None).apply()
        offer_stages("savacu/serve")
    assert isinstance(deployment, UUID)
    return deployment


def test_stages_are_picked_in_the_form_of_a_run(page: Page, server: Server, tmp_path: Path) -> None:
    profile = str(write_profile(tmp_path / "quick.yaml"))
    parameters = {"profile": profile, "limit": 4, "settings": [], "store": str(tmp_path / "store")}
    with ThreadPoolExecutor() as thread:  # Prefect's client is another in this one, where Playwright has its event loop
        deployment = thread.submit(register, server, parameters).result()
    page.goto(f"/v2/deployments/deployment/{deployment}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    options = page.get_by_role("option")
    for parameter in ("from_stage", "force", "only"):
        page.get_by_role("button", name=f"Select {parameter}").click()
        expect(options.get_by_text("generate_0_g1", exact=True)).to_be_visible()
        if parameter == "only":
            options.get_by_text("ingest", exact=True).click()
        page.keyboard.press("Escape")
        expect(options).to_have_count(0)
    with page.expect_response(re.compile(r"/create_flow_run$")) as answer:
        page.get_by_role("button", name="Submit", exact=True).click()
    run = answer.value.json()["id"]
    server.python("-m", "prefect.engine", run)  # as a runner starts it
    page.goto(f"/v2/runs/flow-run/{run}")
    tasks = open_tab(page, "Task Runs")
    expect(tasks).to_contain_text("(1 Completed)")
    expect(tasks.get_by_role("link", name="ingest", exact=True)).to_be_visible()


def test_the_history_of_a_table_has_an_entry_for_each_build(page: Page, builds: tuple[str, str]) -> None:
    page.goto("/v2/artifacts/key/toy-echo")
    expect(page.locator("a[href*='/artifacts/artifact/']")).to_have_count(2)
    for build in builds:
        expect(page.get_by_role("link", name=build)).to_be_visible()


def test_a_graph_is_drawn_whatever_its_stages_are_called(page: Page, server: Server, builds: tuple[str, str]) -> None:
    odd = ['a "b" [c]', "d|e `f`", "end", "<b>g</b> #h; {i}", "graph; click", "é (j) -->", "1. k", "- l"]
    graph = {stage: odd[:place] for place, stage in enumerate(odd)}
    markdown = lineage_graph(Lineage(system="toy", build="test", graph=graph), here="end")
    run = server.run_id(builds[0])
    made = server.ask("/artifacts/", key="odd", type="markdown", data=markdown, flow_run_id=run)
    page.goto(f"/v2/artifacts/artifact/{made['id']}")
    drawn = page.locator("svg.flowchart")
    expect(drawn.locator(".nodeLabel")).to_have_count(len(odd))
    assert node_labels(drawn) == [f"{stage} not yet" for stage in odd]


def test_the_curve_of_a_trained_model_is_drawn(page: Page, server: Server, builds: tuple[str, str]) -> None:
    rows = pl.DataFrame({"step": range(1, 101), "loss": [1 / number for number in range(1, 101)]})
    trained = TrainingRecord(
        product="adapter",
        files=2,
        bytes=3_000_000,
        bases={"policy": {"engine": "transformers 1", "model": "org/base"}},
        through=(),
        learned_from={"toy/pairs": 412},
        settings={"lora.rank": 8},
        curve=Curve(rows=rows),
    )
    markdown = "\n\n".join(training(trained))
    run = server.run_id(builds[0])
    made = server.ask("/artifacts/", key="trained", type="markdown", data=markdown, flow_run_id=run)
    page.goto(f"/v2/artifacts/artifact/{made['id']}")
    expect(page.locator("svg .line-plot-0 path")).to_have_attribute("stroke", "#1d4ed8")
    expect(page.locator("svg text", has_text="loss by step, the mean of 2 rows a point")).to_be_visible()
    expect(page.get_by_role("cell", name="412 rows of toy/pairs")).to_be_visible()
    expect(page.get_by_role("cell", name="lora.rank")).to_be_visible()

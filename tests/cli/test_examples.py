"""The examples run as they stand: a flow in a file by the command, a notebook in a real kernel."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from typer.testing import CliRunner

import normloom as nl
from normloom.cli.app import app
from normloom.core.errors import ConfigError
from normloom.history.resume import rebuild_commands
from normloom.settings.flow_file import system_of
from normloom.store.store import Store

PROGRESS = ("of the work", "<Result")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.usefixtures("found_prefect")
def test_a_flow_in_a_file_is_planned_built_and_explained(tmp_path: Path) -> None:
    file, store = str(EXAMPLES / "politeness.py"), ["--store", str(tmp_path / "store")]
    run = CliRunner()
    planned = run.invoke(app, ["plan", file, *store, "--json"])
    assert json.loads(planned.stdout)["to_do"] == ["prompts", "tone"]
    built = run.invoke(app, ["build", file, *store, "--json", "--set", "resources.actors=0"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["system"] == "politeness"
    shown = run.invoke(app, ["query", "SELECT count(*) AS n FROM politeness_tone WHERE polite > 0", *store, "--json"])
    assert json.loads(shown.stdout) == [{"n": 3}]
    assert "would be reused" in run.invoke(app, ["why", file, "tone", *store]).output
    page = tmp_path / "page.html"
    assert run.invoke(app, ["report", file, *store, "--out", str(page)]).exit_code == 0
    assert "politeness" in page.read_text()
    for command in ("tables", "builds", "releases", "gc"):
        assert run.invoke(app, [command, file, *store]).exit_code == 0
    with pytest.raises(ConfigError, match=f"politeness was built from {file}: name that file instead"):
        nl.plan("politeness", store=tmp_path / "store")
    assert rebuild_commands(["politeness", "savacu"], Store(tmp_path / "store")) == [
        f"normloom build {file}",
        "normloom build savacu",
    ]
    with pytest.raises(ConfigError, match=f"takes no --limit: .* `normloom build {file}` without it"):
        nl.plan(file, store=tmp_path / "store", limit=2)


@pytest.mark.usefixtures("found_prefect")
def test_a_flow_in_a_file_with_settings_keeps_a_ledger(tmp_path: Path) -> None:
    def built(*settings: str) -> nl.Result:
        file = str(EXAMPLES / "sentences.py")
        return nl.build(file, store=tmp_path / "store", settings=["resources.actors=0", *settings])

    result = built()
    assert result.rows.collect()["sentence"].to_list() == ["Bring a valid passport", "The office opens at nine"]
    reasons = result.dropped.collect()["reason"].sort().to_list()
    assert reasons == ["repeated", "repeated", "too_short"]
    stricter = built("distinct.min_words=5")
    assert stricter.rows.collect()["sentence"].to_list() == ["The office opens at nine"]
    assert set(stricter.reused) == {"documents", "cut"}


def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    notebook = nbformat.read(  # type: ignore[no-untyped-call]  # nbformat has no types
        shutil.copy(EXAMPLES / "politeness.ipynb", tmp_path), as_version=4
    )
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert "('tone', 'new')" in shown[0]["text/plain"]
    progress, result = (next(one["text/html"] for one in shown if text in one["text/plain"]) for text in PROGRESS)
    assert "tables, 100% of the work" in progress
    assert "<td>tone</td><td>2</td>" in result
    assert [one["text/plain"] for one in shown if "ipywidgets" in one["text/plain"]] == []
    assert set(re.findall(r"'(\w+)'", shown[-1]["text/plain"])) == {"table", "tone"}
    assert [output for cell in notebook.cells for output in cell.get("outputs", ()) if "name" in output] == []


@pytest.mark.usefixtures("found_prefect")
@pytest.mark.parametrize(
    ("page", "fence"), [("README.md", "```python\n"), ("docs/python.md", "A complete notebook:\n")]
)
def test_the_code_of_the_pages_runs_on_a_file_with_more_columns(
    page: str, fence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.csv").write_text("prompt,licence\nCould you?,cc0\nDo it.,cc0\n")
    pieces = (EXAMPLES.parent / page).read_text().split(fence)
    code = next(piece for piece in pieces if "@nl.step" in piece).partition("result.rows.collect()")[0]
    model = 'model="SmolLM2-135M-Instruct"'
    assert model in code
    code = textwrap.dedent(code).replace(model, 'model=nl.ModelSpec(engine="scripted", model="m")')
    Path("page.py").write_text(code)
    result = runpy.run_path("page.py")["result"]
    assert result.rows.collect()["prompt"].to_list() == ["Could you?", "Do it."]


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("x = 1", "", "expected one System or a function 'flow'; name one as"),
        ("def other(): ...", ":mine", "has no 'mine'; it has other"),
        ("flow = 3", "", "expected a System or a function, got int"),
        ("def flow(config): ...", "", "parameter 'config' must be declared as a SystemConfig"),
        ("raise ValueError('no')", "", "cannot be imported: ValueError: no (line 1)"),
    ],
)
def test_a_file_that_is_no_flow_is_refused(tmp_path: Path, text: str, name: str, sentence: str) -> None:
    file = tmp_path / f"flow_{abs(hash(text))}.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        system_of(f"{file}{name}")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [
        ("\n    1 / 0", r"mine\.py: flow\(\) failed: ZeroDivisionError: division by zero \(line 2\)"),
        ("\n    return 5", "the flow of mine must return a stage or a list of stages, got 5"),
        ("\n    return []", r"got \[\]"),
        (" pass", "got None"),
        ("\n    from normloom import ConfigError\n    raise ConfigError('not here')", "^not here"),
    ],
)
def test_a_flow_that_returns_no_stages_is_refused_before_the_build(tmp_path: Path, flow: str, sentence: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"def flow():{flow}\n")
    with pytest.raises(ConfigError, match=f"{sentence}$"):
        nl.plan(file, store=tmp_path / "store")


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = "from normloom.settings.system import System\nfrom normloom.settings.flow_file import FlowConfig\n"
    text += "def stages(config): return []\nONE = System(name='{}', title='', config=FlowConfig, flow=stages)\n"
    for place, name in enumerate(("first", "second"), start=1):
        file.write_text(text.format(name))
        os.utime(file, ns=(place, place))
        assert system_of(str(file)).name == name


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.py is not a file"):
        system_of("nowhere.py")

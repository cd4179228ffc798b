from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hand_made import SCRIPTED_COMMAND
from typer.testing import CliRunner, Result

from normloom.cli.commands.reading.why import _lines, why
from normloom.cli.commands.running.plan import _summary, _why, plan
from normloom.core.errors import ConfigError, UsageError
from normloom.core.table import Manifest
from normloom.planning.causes import Cause
from normloom.planning.plan import plan as make_plan
from normloom.settings.settings import stages_for
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing.toy import runner, words_stage
from normloom.workers.resources import Resources

MADE = ("ingest", "score_labels", "classify", "gaps")
SETTINGS = [
    *(text for text in SCRIPTED_COMMAND if text != "--set"),
    "classify.route=exhaustive",
    "rounds=0",
    "source.limit=6",
]
OPTIONS = [text for setting in SETTINGS for text in ("--set", setting)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store with the first tables of the system, and work beside it."""
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "store")
    return tmp_path / "store"


def build(root: Path, *settings: str, identity: str = "first") -> None:
    store = Store(root)
    loom = replace(runner(store), system="savacu", build=identity)
    made: dict[str, Manifest] = {}
    for stage in stages_of(
        *stages_for("savacu", profile="local", assignments=[*SETTINGS, *settings], store=store).ends
    ):
        if stage.name in MADE:
            inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
            made[stage.name], _ = loom.run(stage, inputs, sides)
    loom.pool.close()


def run(name: str, *arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("plan")(plan)
    app.command("why")(why)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [name, "savacu", *arguments])


def planned(*settings: str) -> dict[str, object]:
    result = run("plan", *OPTIONS, *(text for setting in settings for text in ("--set", setting)), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def states(found: dict[str, object]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in found["stages"]}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("store")
def test_the_plan_tells_what_is_there_and_what_is_not() -> None:
    found = planned()
    assert [name for name, state in states(found).items() if state == "reused"] == list(MADE)
    assert {state for name, state in states(found).items() if name not in MADE} == {"new"}
    assert found["loads"] == ["m", "n", "j"]
    assert found["untimed"][:2] == ["duplicates", "deduplicate"]  # type: ignore[index]  # a list, in JSON
    text = run("plan", *OPTIONS).stdout
    assert "13 of 17 stages to do; time unknown (no earlier table of duplicates, deduplicate, " in text
    assert "Models load: m, n, j (a load: m under 1 s)." in text


@pytest.mark.usefixtures("store")
def test_the_plan_names_what_changed_and_what_waits_for_it() -> None:
    found = planned("classify.delta=0.6")
    assert states(found) | {"classify": "changed", "gaps": "waiting"} == states(found)
    text = run("plan", *OPTIONS, "--set", "classify.delta=0.6").stdout
    assert "arguments.delta 0.5 -> 0.6" in text
    assert "unless classify is unchanged" in text
    assert re.search(r", 1 more unless what they read is unchanged; (time unknown|at least \d)", text)


@pytest.mark.usefixtures("store")
def test_the_plan_of_chosen_stages() -> None:
    chosen = json.loads(run("plan", *OPTIONS, "--only", "gaps", "--force", "gaps", "--json").stdout)
    assert states(chosen) == {"classify": "taken", "gaps": "again"}
    assert "agreement" not in states(json.loads(run("plan", *OPTIONS, "--from", "gaps", "--json").stdout))


def test_planning_leaves_no_trace(store: Path) -> None:
    before = sorted(store.rglob("*"))
    run("plan", *OPTIONS, "--set", "classify.delta=0.6")
    run("why", "classify", *OPTIONS, "--set", "classify.delta=0.6")
    assert sorted(store.rglob("*")) == before


@pytest.mark.usefixtures("store")
def test_why_names_the_setting_upstream() -> None:
    options = [*OPTIONS, "--set", "classify.delta=0.6"]
    lines = run("why", "gaps", *options).stdout.splitlines()
    assert lines[0].startswith("gaps: it would be rebuilt unless what it reads is unchanged; against table ")
    assert lines[0].endswith(" of build first")
    assert lines[1:] == ["  through gaps <- classify:", "    arguments.delta: 0.5 -> 0.6"]
    found = json.loads(run("why", "gaps", *options, "--json").stdout)
    [cause] = found["causes"]
    assert (cause["stage"], cause["path"]) == ("classify", ["gaps", "classify"])
    assert cause["changes"] == [
        {"field": "arguments.delta", "kind": "changed", "old": 0.5, "new": 0.6, "upstream": None}
    ]
    assert (found["state"], found["old"]["build"], found["new"], found["changes"]) == ("waiting", "first", None, [])


@pytest.mark.usefixtures("store")
def test_why_shows_what_changed_in_a_template(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    for path in (Path(stages_for.__code__.co_filename).parent.parent / "schemas" / "templates").glob("*.txt"):
        text = path.read_text()
        (templates / path.name).write_text(text.replace("prompt", "question") if path.stem == "classify" else text)
    lines = run("why", "score_labels", *OPTIONS, "--set", f"templates={templates}").stdout.splitlines()
    assert any(line.startswith("  arguments.template.sections.") for line in lines)
    assert any("question" in line for line in lines)


def test_why_tells_of_an_unchanged_table_what_made_it(store: Path) -> None:
    assert run("why", "classify", *OPTIONS).stdout.splitlines()[1] == "it is this stage's first table"
    build(store, "classify.delta=0.6", identity="second")
    lines = run("why", "classify", *OPTIONS, "--set", "classify.delta=0.6").stdout.splitlines()
    assert lines[0].startswith("classify: unchanged, table ")
    assert lines[0].endswith(" of build second would be reused")
    assert lines[1].startswith("it differs from the one before it, table ")
    assert lines[2:] == ["  arguments.delta: 0.5 -> 0.6"]


@pytest.mark.usefixtures("store")
def test_why_of_a_stage_without_a_table_or_without_a_name() -> None:
    assert run("why", "expand", *OPTIONS).stdout == "expand: it has no table in the store yet, so it would be made\n"
    unknown = run("why", "clasify", *OPTIONS)
    assert isinstance(unknown.exception, UsageError)
    assert "did you mean classify?" in str(unknown.exception)


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting classify\.delt, did you mean delta"):
        stages_for("savacu", profile="local", assignments=["classify.delt=1"], store=Store(tmp_path))
    with pytest.raises(ConfigError, match="unknown system 'savacy'"):
        stages_for("savacy", profile="local", assignments=[], store=Store(tmp_path))


@pytest.mark.usefixtures("store")
def test_a_plan_with_nothing_to_do_one_over_its_limit_and_one_for_a_cluster() -> None:
    text = run("plan", *OPTIONS, "--only", "gaps").stdout
    assert "Nothing to do: the tables of all 2 stages are up to date.\nNo model is loaded.\n" in text
    paid = ["--set", "models.judge={engine: scripted, model: j, options: {price_in: 1, price_out: 1}}"]
    text = run("plan", *OPTIONS, *paid, "--max-cost", "0").stdout
    assert "normloom build would not start: this build may cost up to " in text
    text = run("plan", *OPTIONS, "--set", "resources.actors=1", "--set", "resources.gpus=1").stdout
    assert "Models needed: m, n, j; how often each loads depends on the room in the cluster." in text


def test_parts_of_the_same_rows_and_the_time_are_told(tmp_path: Path) -> None:
    found = make_plan([words_stage("a")], system="toy", store=Store(tmp_path), resources=Resources(actors=0))
    [one] = [replace(stage, parts=1200, parts_done=1000, seconds=75.0) for stage in found.stages]
    assert _why(one) == "no table yet; 1,000 of 1,200 parts can be reused"
    assert _why(replace(one, expected=True)).endswith("; about 1,000 of 1,200 parts can be reused")
    whole = replace(found, stages=(one,))
    assert _summary(whole) == "1 of 1 stages to do; about 1 min."
    assert _summary(replace(whole, stages=(replace(one, seconds=0.2),))) == "1 of 1 stages to do; under 1 s."


def test_a_cause_whose_table_is_gone_says_so() -> None:
    assert _lines([], [Cause(stage="words", path=("echo", "words"), changes=None)]) == [
        "  through echo <- words: the table of words that was read is no longer in the store"
    ]

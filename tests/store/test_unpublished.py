"""What refused and unfinished tables and builds leave is shown, and said to be what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from normloom.cli.commands.reading.builds import builds
from normloom.cli.commands.reading.quarantine import quarantine
from normloom.cli.commands.reading.query import query
from normloom.core.errors import BuildCancelledError, QuarantineBudgetError, UsageError
from normloom.core.stage import Stage
from normloom.history.unfinished import KEPT, UnfinishedBuild, dead, recorded, unfinished
from normloom.report.material import find_material
from normloom.report.sections.data.rows import collect
from normloom.store.store import Store
from normloom.store.unpublished import unpublished
from normloom.testing.builds import build_id, built
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage

Command = Callable[..., Result]
ONE, TWO, THREE = (build_id(number) for number in (1, 2, 3))
POISONED = SCRIPTED.model_copy(update={"options": {"raise_on": "bad"}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def command(store: Store, monkeypatch: pytest.MonkeyPatch) -> Command:
    app = typer.Typer()
    for each in (builds, quarantine, query):
        app.command()(each)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *given: CliRunner().invoke(app, [*given, "--store", str(store.root)], catch_exceptions=False)


def echoes(*words: str) -> Stage:
    return echo_stage(words_stage(*words), model=POISONED, aside="c")


def refused(store: Store, stage: Stage) -> None:
    """Make a table that its budget refuses, in a build that leaves a record."""
    build = UnfinishedBuild(system="toy", build=TWO, profile="local", settings=("a=1",))
    with recorded(store, build):
        loom = replace(runner(store, budget=0.1), build=TWO)
        table, _ = loom.run(stage.inputs[0], [], [])
        loom.run(stage, [table.ref], [])


def test_rows_of_a_refused_table_are_shown_as_of_an_unpublished_one(store: Store, command: Command) -> None:
    with pytest.raises(QuarantineBudgetError):
        refused(store, echoes("a", "b", "c", "c"))
    [table] = unpublished(store, "toy")
    assert (table.stage, table.quarantined_by) == ("echo", {"asked": 2})
    rows = json.loads(command("quarantine", "toy", "--json").stdout)
    assert [(row["stage"], row["published"], row["reason"]) for row in rows] == [("echo", False, "because")] * 2
    shown = command("quarantine", "toy")
    assert "echo (unpublished)" in shown.stdout
    assert f"build {TWO} failed: stage 'echo' put 2 of 4 rows into quarantine" in shown.stderr
    asked = json.loads(command("query", "SELECT reason, published FROM toy_echo_quarantined", "--json").stdout)
    assert asked == [{"reason": "because", "published": False}] * 2


def test_a_published_table_hides_older_refused_ones_and_younger_ones_stand_beside_it(
    store: Store, command: Command
) -> None:
    with suppress(QuarantineBudgetError):
        refused(store, echoes("a", "b", "c", "c"))
    good = echoes("a", "b", "c", "d")
    built(store, good, build=THREE)
    assert unpublished(store, "toy") == []
    with suppress(QuarantineBudgetError):
        refused(store, echoes("c", "c", "b", "a"))
    assert [row["published"] for row in json.loads(command("quarantine", "toy", "--json").stdout)] == [
        True,
        False,
        False,
    ]
    counted = "SELECT published, count(*)::INT AS rows FROM toy_echo_quarantined GROUP BY ALL ORDER BY ALL"
    assert json.loads(command("query", counted, "--json").stdout) == [
        {"published": False, "rows": 2},
        {"published": True, "rows": 1},
    ]
    built(store, good, build=build_id(4))  # reused, and thereby the newest
    assert unpublished(store, "toy") == []


def test_builds_that_failed_were_cancelled_or_killed_or_run_are_told_apart(store: Store, command: Command) -> None:
    built(store, echoes("a", "b"), build=ONE)
    with suppress(QuarantineBudgetError):
        refused(store, echoes("a", "b", "c", "c"))
    with suppress(KeyboardInterrupt), recorded(store, UnfinishedBuild(system="toy", build=THREE)):
        raise KeyboardInterrupt
    killed(store, UnfinishedBuild(system="toy", build=build_id(4), settings=('source.path="my file.csv"',)))
    running = UnfinishedBuild(system="toy", build=build_id(5), profile="local", selection={"only": ["echo"]})
    with recorded(store, running) as record:
        record.belongs_to("a-run")
        found = json.loads(command("builds", "toy", "--json").stdout)
        assert [build["state"] for build in found] == ["finished", "failed", "cancelled", "killed", "running"]
        assert (found[1]["build"], found[1]["settings"]) == (TWO, ["a=1"])
        assert found[1]["error"].startswith("stage 'echo' put 2 of 4 rows into quarantine (asked 2)")
        assert found[4]["flow_run"] == "a-run"
        lines = command("builds", "toy").stdout.splitlines()
        assert [build.build for build in dead(store, "toy")] == [TWO, THREE, build_id(4)]
    assert any(line.startswith(f"{build_id(5)}  toy") and line.endswith("running") for line in lines)
    assert "    profile local, only echo" in lines
    again = f"    to resume: normloom build toy --set 'source.path=\"my file.csv\"' --store {store.root}"
    assert again in lines
    assert sum("to resume" in line for line in lines) == 3
    assert [build.build for build in unfinished(store, "toy")] == [TWO, THREE, build_id(4)]  # who finishes leaves none


def killed(store: Store, build: UnfinishedBuild) -> None:
    """Leave the record of a build whose process was killed at work."""
    dying = (
        "import os, signal, sys; from pathlib import Path; from normloom.store.store import Store; "
        "from normloom.history.unfinished import UnfinishedBuild, recorded\n"
        "with recorded(Store(Path(sys.argv[1])), UnfinishedBuild.model_validate_json(sys.argv[2])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", dying, str(store.root), build.model_dump_json()], check=False)


def test_the_first_word_of_how_a_build_ended_stands(store: Store) -> None:
    with suppress(KeyboardInterrupt), recorded(store, UnfinishedBuild(system="toy", build=ONE)) as record:
        record.ended(ValueError("the cause"), stage="echo")
        raise KeyboardInterrupt
    with suppress(BuildCancelledError), recorded(store, UnfinishedBuild(system="toy", build=TWO)):
        raise BuildCancelledError("in the UI")
    first, second = unfinished(store, "toy")
    assert (first.state, first.stage, first.error) == ("failed", "echo", "ValueError: the cause")
    assert (second.state, second.error) == ("cancelled", None)
    assert sorted(path.name for path in (store.root / "toy" / "builds").iterdir()) == [f"{ONE}.json", f"{TWO}.json"]


def test_the_report_tells_of_them(store: Store) -> None:
    with suppress(QuarantineBudgetError):
        refused(store, echoes("a", "b", "c", "c"))
    with pytest.raises(UsageError, match=rf"no build of toy .*; the newest, {TWO}, is failed \(stage 'echo'"):
        find_material(store, "toy")
    built(store, echoes("a", "b", "c", "d"), build=THREE)
    with suppress(QuarantineBudgetError):
        refused(store, echoes("c", "c", "b", "a"))
    [table] = collect(find_material(store, "toy"))["unpublished"]
    assert table == {"stage": "echo", "quarantined_by": {"asked": 2}}


def test_old_records_are_removed(store: Store) -> None:
    for number in range(KEPT + 3):
        with suppress(KeyboardInterrupt), recorded(store, UnfinishedBuild(system="toy", build=f"b{number:03d}")):
            raise KeyboardInterrupt
    found = [build.build for build in unfinished(store, "toy")]
    assert len(found) == KEPT + 1
    assert found[-1] == f"b{KEPT + 2:03d}"


def test_a_table_of_which_no_part_can_be_read_is_none(store: Store) -> None:
    with pytest.raises(QuarantineBudgetError):
        refused(store, echoes("a", "b", "c", "c"))
    [table] = unpublished(store, "toy")
    for marker in table.directory.glob("part-*.json"):
        marker.write_text("{")
    assert list(unpublished(store, "toy")) == []

"""`normloom quarantine`: what it lists, what it says if there is nothing, and rows that come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from command_line import Command
from typer.testing import CliRunner, Result

from normloom.cli.commands.reading import quarantine as module
from normloom.core.errors import UsageError
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage


def run(store: Store, *arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("quarantine")(module.quarantine)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["toy", *arguments, "--store", str(store.root)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    words = words_stage("one", "[two]", "three")
    built(store, echo_stage(words, aside="[two]"), build=build_id(1))
    return store


def test_rows_are_listed_with_rule_and_reason_and_as_json(store: Store) -> None:
    ran = run(store)
    assert ran.exit_code == 0, ran.output
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("echo")]
    assert line.split()[2:4] == ["asked", "because"]
    assert '"word": "[two]"' in line or '"word":"[two]"' in line
    [row] = json.loads(run(store, "echo", "--json").stdout)
    assert (row["stage"], row["published"], row["rule"], row["payload"]["word"]) == ("echo", True, "asked", "[two]")
    assert run(store, "words").stdout == "No row is in quarantine.\n"


def test_more_rows_than_are_shown_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHOWN", 0)
    assert "first 0 of 1 rows; --json gives all" in run(store).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ecko"], "stage 'ecko' has no table; available: words, echo"),
        (["words", "--replay"], "no row of toy, stage words, is in quarantine: nothing to replay"),
        (["--limit", "3"], "need --replay: add it"),
    ],
)
def test_wrong_usage(store: Store, arguments: list[str], message: str) -> None:
    error = run(store, *arguments).exception
    assert isinstance(error, UsageError)
    assert message in str(error)


def test_an_empty_store_has_nothing_to_show(tmp_path: Path) -> None:
    error = run(Store(tmp_path)).exception
    assert isinstance(error, UsageError)
    assert str(error) == f"no tables in {tmp_path} yet: run normloom build first, or name another store"


FLOW = """
from pathlib import Path

import polars as pl

import normloom as nl
from normloom.core.stage import quarantined, quarantined_frame


@nl.step(makes={"word": pl.String}, fan_out=nl.each())
def mended(rows: pl.DataFrame) -> nl.Output:
    if not Path("lost").exists():
        Path("lost").touch()
        raise nl.ClusterError("all nodes are gone")
    broken = rows.filter((pl.col("word") == "broken") & ~pl.lit(Path("mended").exists()))
    aside = [quarantined(row, "broken", "it is broken") for row in broken.to_dicts()]
    return nl.Output(rows=rows.join(broken, on="row_id", how="anti"), quarantined=quarantined_frame(aside))


def flow() -> nl.Stage:
    return mended(nl.table([{"word": "whole"}, {"word": "broken"}, {"word": "other"}]))
"""


@pytest.mark.usefixtures("found_prefect")
def test_a_build_outlives_the_loss_of_its_machines_and_its_rows_come_back(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("words.py").write_text(FLOW)
    monkeypatch.setenv("NORMLOOM_LOGS", "json")
    built = command("build", "words.py", "--set", "resources.actors=0")
    assert built.code == 0, built.err
    assert "all nodes are gone; starting again" in built.err
    assert any(json.loads(line)["level"] == "INFO" for line in built.err.splitlines() if line.startswith("{"))
    Path("mended").touch()
    replayed = command("quarantine", "words.py", "--replay", "--set", "resources.actors=0")
    assert replayed.code == 0, replayed.err
    assert "mended: 1 of 1 rows were recovered" in replayed.out

"""`normloom quarantine` without --replay: what it lists, and what it says if there is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from normloom.cli.commands.reading import quarantine as command
from normloom.core.errors import UsageError
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage


def run(store: Store, *arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("quarantine")(command.quarantine)
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
    monkeypatch.setattr(command, "SHOWN", 0)
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

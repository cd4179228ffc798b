"""`normloom export` and the versions that `normloom releases` lists, as a user gives the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import normloom as nl
from normloom.cli.app import app
from normloom.core.errors import UsageError
from normloom.history.terms import SourceTerms
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    built(made, echo_stage(words_stage(*"ab")), build=build_id(1), source=SourceTerms(name="a.csv"))
    built(made, echo_stage(words_stage(*"abc")), build=build_id(2), source=SourceTerms(name="a.csv", licence="mit"))
    return made


@pytest.fixture
def command(store: Store) -> Command:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--store", str(store.root)])

    return run


def test_versions_are_listed_the_newest_first(command: Command) -> None:
    lines = command("releases", "toy").stdout.splitlines()
    assert lines[0].split() == ["version", "date", "rows", "content", "licence", "build"]
    told = [[line.split()[0], *line.split()[3:]] for line in lines[1:]]
    contents = [record["content"] for record in json.loads(command("releases", "toy", "--json").stdout)]
    assert told == [
        ["1.1.0", "3", contents[1], "mit", build_id(2)],
        ["1.0.0", "2", contents[0], "unknown", build_id(1)],
    ]


def test_releases_of_an_unknown_system_names_those_there_are(command: Command) -> None:
    failed = command("releases", "nothing")
    assert isinstance(failed.exception, UsageError)
    assert "unknown system 'nothing' in" in str(failed.exception)
    assert "available: toy" in str(failed.exception)


def test_versions_are_compared(command: Command) -> None:
    said = command("diff", "1.0.0", "1.1.0", "--system", "toy").stdout
    assert f"toy {build_id(1)} → {build_id(2)}" in said
    assert "rows: 1 added, 0 removed, 0 changed" in said


def test_an_export_is_described_and_warns_of_its_licence(command: Command, tmp_path: Path) -> None:
    done = command("export", "toy", str(tmp_path / "out"), "--release", "1.0.0")
    assert "toy 1.0.0" in done.stdout
    assert "data/default/train.parquet" in done.stdout
    assert "Licence unknown" in done.stdout
    assert "nobody has said that these rows may be shared" in " ".join(done.stderr.split())


def test_an_export_as_json(command: Command, tmp_path: Path) -> None:
    told = json.loads(command("export", "toy", str(tmp_path / "out"), "--format", "csv", "--json").stdout)
    assert (told["version"], told["format"], told["licences"], told["warnings"]) == ("1.1.0", "csv", ["mit"], [])
    [table] = told["tables"]
    [file] = table["files"]
    assert (table["name"], table["stage"], file["path"], file["rows"]) == (
        "default",
        "echo",
        "data/default/train.csv",
        3,
    )
    assert (tmp_path / "out" / file["path"]).stat().st_size == file["bytes"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--pairs", "kto"], "--pairs kto needs --format trl"),
        (["--public"], "--public applies to the repository that --push creates"),
        (["--release", "9.0.0"], "unknown version '9.0.0' of toy"),
        (["--format", "trl"], "no preferences in toy/echo"),
        (["--table", "words"], "unknown released table 'words' of toy; available: echo"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_a_folder_is_made(
    command: Command, tmp_path: Path, options: list[str], why: str
) -> None:
    failed = command("export", "toy", str(tmp_path / "out"), *options)
    assert isinstance(failed.exception, UsageError)
    assert why in str(failed.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_release_is_exported_from_python(store: Store, tmp_path: Path) -> None:
    made = nl.export("toy", tmp_path / "out", store=store, format="jsonl", version="1.0.0")
    assert (made.path, made.release.rows, made.licences) == (tmp_path / "out", 2, [None])
    again = nl.export("toy", tmp_path / "out", store=store.root, overwrite=True)
    assert (again.release.version, [file.path for file in again.tables[0].files]) == (
        "1.1.0",
        ["data/default/train.parquet"],
    )

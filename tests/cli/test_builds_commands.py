from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from test_drift import Labels, label_rows
from typer.testing import CliRunner, Result

from normloom.cli.commands.keeping.gc import gc
from normloom.cli.commands.reading.builds import _lines, builds
from normloom.cli.commands.reading.diff import _details, diff, shortened
from normloom.core.contract import Contract
from normloom.core.errors import UsageError
from normloom.core.stage import Stage
from normloom.core.table import FileRecord
from normloom.history.unfinished import UnfinishedBuild
from normloom.lineage.diff import StageDiff
from normloom.lineage.table_diff import TableDiff
from normloom.planning.costs.spent import Spent
from normloom.schemas.tables import LABELS
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import SCRIPTED, echo_stage, words_stage

Command = Callable[..., Result]
ONE, TWO, THREE = (build_id(number) for number in (1, 2, 3))


def labelled(*rows: tuple[str, ...]) -> Stage:
    contract = Contract(columns={"labels": LABELS})
    return Stage(name="labelled", function=label_rows, arguments=Labels(rows=rows), contract=contract)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three builds: all new, all other, all reused but one table that was forced."""
    made, other = Store(tmp_path / "store"), SCRIPTED.model_copy(update={"model": "other"})
    first = echo_stage(words_stage(*"abcdef"), drop="b", aside="c")
    later = echo_stage(words_stage(*"abcdeg"), drop="d", model=other)
    labels = labelled(("safety/a", "value/[x]"), ("safety/a",), ("safety/b",))
    built(made, first, labels, build=ONE, profile="local")
    labels = labelled(("safety/b", "value/[x]"), ("safety/a",), ("safety/b",))
    settings = ["classify.delta=0.4"]
    built(made, later, labels, build=TWO, profile="[gpu]", settings=settings)
    built(made, later, labels, build=THREE, profile="[gpu]", settings=settings, force=["echo"])
    return made


@pytest.fixture
def command(store: Store, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The commands over the store, in a terminal wide enough not to wrap."""
    app = typer.Typer()
    for each in (builds, diff, gc):
        app.command()(each)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NORMLOOM_STORE", str(store.root))
    return lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)


def as_json(result: Result) -> Any:
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_builds_are_listed_with_what_they_made_and_released(command: Command) -> None:
    ran = command("builds")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        f"{ONE}  toy  2026-11-22 00:00 UTC  3 stages: 3 made",
        "    rows: echo 4, labelled 3",
        "    profile local",
        f"{TWO}  toy  2026-11-22 00:00 UTC  3 stages: 3 made",
        "    rows: echo 5, labelled 3",
        "    profile [gpu], classify.delta=0.4",
        f"{THREE}  toy  2026-11-22 00:00 UTC  3 stages: 1 made, 2 reused",
        "    rows: echo 5, labelled 3",
        "    profile [gpu], classify.delta=0.4",
    ]
    assert command("builds", "toy", "--limit", "1").stdout.startswith(THREE)


def test_builds_as_json(command: Command) -> None:
    *_, last = as_json(command("builds", "--json"))
    assert last == {
        "system": "toy",
        "build": THREE,
        "file": "",
        "state": "finished",
        "profile": "[gpu]",
        "settings": ["classify.delta=0.4"],
        "selection": {},
        "reads": {},
        "fresh_hours": None,
        "source": {"name": None, "licence": None, "citation": None, "language": []},
        "spent": {"requests": 0, "tokens_in": 0, "tokens_out": 0, "cost": None, "currency": None},
        "started": "2026-11-22T00:00:03+00:00",
        "stages": ["words", "echo", "labelled"],
        "made": ["echo"],
        "reused": ["words", "labelled"],
        "gone": [],
        "released": {"echo": 5, "labelled": 3},
    }


def test_a_system_or_store_without_builds_is_wrong_usage(command: Command, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown system 'other' in .*; available: toy"):
        command("builds", "other")
    with pytest.raises(UsageError, match=r"empty has no builds yet: run normloom build first"):
        command("builds", "--store", str(tmp_path / "empty"))


def test_the_difference_of_two_builds(command: Command) -> None:
    ran = command("diff", ONE, "ab02")
    assert ran.exit_code == 0
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert lines[0] == f"toy {ONE} (profile local) → {TWO} (profile [gpu])"
    assert "echo other rows 4 → 5 1 1 → 0 arguments.aside, arguments.drop, inputs[0], model.model" in lines
    assert "rows: 3 added, 2 removed, 2 changed" in lines
    assert "changed in: echo 2" in lines
    assert "quarantined: asked 1 → 0" in lines
    assert "drift of labels (total variation distance): safety 0.333, value 0.000" in lines
    drift = lines[lines.index("dimension label before after share") + 1 :]
    assert drift == [
        "safety safety/a 2 1 -33.3%",
        "safety safety/b 1 2 +33.3%",
        "safety all 3 3",
        "value all 1 1",
    ]


def test_by_default_the_last_build_is_compared_with_the_one_before_it(command: Command) -> None:
    ran = command("diff")
    assert f"{TWO} (profile [gpu]) → {THREE} (profile [gpu])" in ran.stdout
    assert "rebuilt, same rows" in ran.stdout
    assert "Nothing changed: both builds have the same tables." in command("diff", "last", "last").stdout


def test_difference_as_json(command: Command, store: Store) -> None:
    found = as_json(command("diff", "last~2", "previous", "--json", "--rows", "1"))
    assert (found["system"], found["before"], found["after"]) == ("toy", ONE, TWO)
    words, echo, labelled = found["stages"]
    assert (words["stage"], words["state"], words["fields"], words["gone"]) == (
        "words",
        "changed",
        ["arguments.words[5]"],
        [],
    )
    assert words["table"]["added"] == words["table"]["removed"] == 1
    assert words["drift"] == []
    assert len(echo["table"]["examples"]) == 1
    assert echo["quarantined"] == {"asked": [1, 0]}
    assert (echo["before"]["rows"], echo["after"]["rows"]) == (4, 5)
    assert [drift["dimension"] for drift in labelled["drift"]] == ["safety", "value"]
    assert labelled["drift"][0]["distance"] == pytest.approx(1 / 3)
    remove_old(store)
    gone = as_json(command("diff", "last~2", "previous", "--json"))
    assert [stage["gone"] for stage in gone["stages"]] == [["before"], ["before", "after"], ["before"]]
    assert [(stage["table"], stage["drift"]) for stage in gone["stages"]] == [(None, [])] * 3


def test_a_table_that_gc_removed_is_told_and_the_rest_goes_on(command: Command, store: Store) -> None:
    remove_old(store)
    ran = command("diff", "last~2", "last")
    assert ran.exit_code == 0
    told = "the table of the earlier build is no longer in the store: rows cannot be compared"
    assert ran.stdout.count(told) == 3
    assert "3 gone" in command("builds").stdout


def remove_old(store: Store) -> None:
    from normloom.history.removal.gc import collect, remove

    remove(store, collect(store, "toy", keep=1))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("old", "new", ("old", "new")),
        (None, [], ("null", "[]")),
        ("same " * 40 + "A", "same " * 40 + "B", ("…same same same same A", "…same same same same B")),
        ("x" * 200, "x", ("x" * 80 + "…", "x")),
        ("x", "y" + "x" * 200, ("x", "y" + "x" * 79 + "…")),
    ],
)
def test_values_are_cut_around_their_first_difference(before: Any, after: Any, shown: tuple[str, str]) -> None:
    assert shortened(before, after) == shown


def tables(store: Store) -> int:
    return len([*store.root.glob("toy/*/*/manifest.json")])


def test_gc_shows_and_removes_nothing_without_being_told_to(command: Command, store: Store) -> None:
    assert tables(store) == 7
    ran = command("gc", "--keep", "1")
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert [line.partition(" kB")[0].rpartition(" ")[0] for line in lines[1:4]] == [
        "toy_echo old tables 2 6",
        "toy_labelled old tables 1 1",
        "toy_words old tables 1 1",
    ]
    assert lines[4].startswith("In all 4 old tables, ")
    assert (ran.exit_code, ran.stderr) == (0, "Nothing was removed: give --yes to remove without being asked.\n")
    dry = command("gc", "--keep", "1", "--dry-run", "--yes")
    assert (dry.exit_code, dry.stdout, dry.stderr) == (0, ran.stdout, "")
    shown = as_json(command("gc", "--keep", "1", "--json"))
    assert [item["removed"] for item in shown["systems"]["toy"]] == [False] * 4
    assert (shown["bytes"] > 0, shown["bytes_removed"]) == (True, 0)
    assert tables(store) == 7


def test_gc_removes_with_yes(command: Command, store: Store) -> None:
    ran = command("gc", "toy", "--keep", "1", "--yes")
    assert ran.exit_code == 0
    assert "Removed 4 old tables, " in ran.stdout
    assert tables(store) == 3
    assert command("gc", "--keep", "1").stdout == "There is nothing to remove.\n"
    assert as_json(command("gc", "--yes", "--json")) == {"systems": {"toy": []}, "bytes": 0, "bytes_removed": 0}


def test_gc_as_json_says_what_was_removed(command: Command, store: Store) -> None:
    found = as_json(command("gc", "--keep", "1", "--yes", "--json"))
    assert [item["removed"] for item in found["systems"]["toy"]] == [True] * 4
    assert found["bytes"] == found["bytes_removed"] == sum(item["bytes"] for item in found["systems"]["toy"])
    assert tables(store) == 3


ASK = "from normloom.cli.commands.keeping.gc import gc; import typer; typer.run(gc)"


@pytest.mark.parametrize(("answer", "left"), [("n", 7), ("y", 3)])
def test_gc_asks_in_a_terminal(store: Store, answer: str, left: int) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    arguments = ["--store", str(store.root), "--keep", "1"]
    ran = subprocess.run(
        [sys.executable, "-c", ASK, *arguments], stdin=theirs, capture_output=True, text=True, check=True
    )
    os.close(ours)
    os.close(theirs)
    assert "Remove all of this? [y/N]" in ran.stdout
    assert tables(store) == left


def test_gc_leaves_a_system_alone_that_is_being_built_and_goes_on_with_others(command: Command, store: Store) -> None:
    stray = store.root / "other" / "stage" / ("0" * 20)
    stray.mkdir(parents=True)
    with store.building("toy"):
        ran = command("gc", "--keep", "1", "--yes")
    assert ran.exit_code == 1
    assert f"normloom: a build of toy is running in {store.root}" in ran.stderr
    assert "Removed 1 unfinished" in ran.stdout
    assert tables(store) == 7
    assert not stray.exists()


def test_gc_of_a_system_that_is_not_there_is_wrong_usage_and_makes_nothing(command: Command, store: Store) -> None:
    (store.root.parent / "outside").mkdir()
    for name in ("other", "../outside"):
        with pytest.raises(UsageError, match=f"unknown system '{name}'"):
            command("gc", name, "--yes")
    assert {path.name for path in store.root.iterdir()} == {"toy", "format"}
    assert [*(store.root.parent / "outside").iterdir()] == []


def test_columns_types_and_files_that_differ_are_named() -> None:
    table = TableDiff(
        added=0,
        removed=0,
        changed=0,
        changed_in={},
        columns_added=["tone", "length"],
        columns_removed=[],
        retyped={"score": ("FLOAT", "DOUBLE")},
        examples=[],
    )
    files = {"adapter.safetensors": (FileRecord(name="a", rows=0, bytes=2048, sha256="0123456789abcdef" * 4), None)}
    stage = StageDiff(stage="train", state="changed", before=None, after=None, table=table, files=files)
    assert [line.plain for line in _details(stage)] == [
        "\ntrain",
        "  rows: 0 added, 0 removed, 0 changed",
        "  columns added: tone, length",
        "  column score is of another type, its values are not compared: FLOAT → DOUBLE",
        "  file adapter.safetensors: 2,048 bytes (0123456789ab) → none",
    ]


def test_what_models_took_is_listed(store: Store, command: Command) -> None:
    lock = (store.root / "toy" / "builds" / f"{THREE}.yaml").read_text().replace(THREE, build_id(4))
    spent = Spent(requests=2, tokens_in=1_000, tokens_out=40)
    text = re.sub(r"^spent:\n(?:  .*\n)*", "", lock, flags=re.MULTILINE)
    store.write_build("toy", build_id(4), f"{text}spent: {spent.model_dump_json()}\n")
    assert f"    models: {spent}" in command("builds", "--limit", "1").stdout.splitlines()
    left = UnfinishedBuild(system="toy", build=build_id(5), spent=spent)
    assert f"    models: {spent}" in [line.plain for line in _lines(left, store)]

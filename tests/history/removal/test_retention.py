"""Records of old builds go when told to; what a release needs stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from normloom.cli.commands.keeping.prune import prune
from normloom.history.builds import locks
from normloom.history.removal.retention import Expired, expired, remove
from normloom.history.unfinished import UnfinishedBuild, recorded, unfinished
from normloom.lineage.openlineage import record_of
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import words_stage

LATER = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(days=365)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five builds of one flow, which all find the table of the first, and one that failed."""
    store = Store(tmp_path)
    for number in range(1, 6):
        built(store, words_stage("a"), build=build_id(number))
        record_of(store, "toy", build_id(number)).write_text("{}\n")
    with (
        pytest.raises(ValueError, match="broken"),
        recorded(store, UnfinishedBuild(system="toy", build="20261122T000000-dead")),
    ):
        raise ValueError("broken")
    return store


def builds(found: list[Expired]) -> list[str]:
    return [one.build for one in found]


def test_the_last_builds_and_those_of_the_release_stay(store: Store) -> None:
    found = expired(store, before=LATER, keep=2)
    made, confirmed = build_id(1), build_id(5)
    assert builds(found) == ["20261122T000000-dead", build_id(2), build_id(3)]
    assert not {made, confirmed} & set(builds(found))
    assert {path.name for path in found[1].paths} == {f"{build_id(2)}.yaml", f"{build_id(2)}.openlineage.jsonl"}
    remove(found)
    assert [lock.build for lock in locks(store, "toy")] == [made, build_id(4), confirmed]
    assert unfinished(store, "toy") == []
    assert expired(store, before=LATER, keep=2) == []
    assert store.current("toy", "words")


def test_young_builds_stay_and_so_do_those_at_work(store: Store) -> None:
    assert expired(store, before=datetime(2026, 11, 22, tzinfo=UTC), keep=1) == []
    with recorded(store, UnfinishedBuild(system="toy", build="20261122T000000-live")):
        assert "20261122T000000-live" not in builds(expired(store, before=LATER, keep=1))


def test_the_command_shows_first_and_removes_only_when_told(store: Store) -> None:
    app = typer.Typer()
    app.command()(prune)

    def told(*options: str) -> str:
        done = CliRunner().invoke(app, [*options, "--store", str(store.root), "--keep", "1"], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "nothing to remove" in told("--days", "100000")
    for number in range(1, 6):  # as if they had begun long ago
        lock = store.root / "toy" / "builds" / f"{build_id(number)}.yaml"
        old = build_id(number).replace("2026", "2019")
        lock.with_name(f"{old}.yaml").write_text(lock.read_text().replace(build_id(number), old))
        lock.unlink()
    shown = json.loads(told("--json"))
    assert (len(shown["builds"]), shown["removed"]) == (4, False)
    assert "In all 4 builds" in told()
    assert len(locks(store, "toy")) == 5
    assert "Removed the records of 4 builds" in told("--yes")
    assert len(locks(store, "toy")) == 1

"""Which releases are fresh, and who says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from normloom.cli.commands.releasing.releases import releases as command
from normloom.core.errors import UsageError
from normloom.history.builds import locks
from normloom.history.freshness import releases
from normloom.planning.costs.spent import Spent
from normloom.run.build import BuildRequest, reuse
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)  # of the builds of `build_id`, give or take seconds
TOY = echo_stage(words_stage("a", "b", "c"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_release_is_stale_when_no_build_has_confirmed_it_for_long_enough(store: Store) -> None:
    built(store, TOY, build=build_id(1), fresh_hours=26)
    [release] = releases(store)
    assert (release.system, release.stage, release.rows, release.build) == ("toy", "echo", 3, build_id(1))
    assert release.until == BEGAN + timedelta(hours=26, seconds=1)
    assert release.stale(BEGAN + timedelta(hours=26)) is None
    assert release.stale(BEGAN + timedelta(hours=27)) == (
        f"last confirmed 27.0 hours ago by build {build_id(1)}, release.fresh_hours is 26"
    )
    built(store, TOY, build=build_id(2), fresh_hours=1)  # makes nothing: all is as it was
    [again] = releases(store)
    assert (again.key, again.build, again.fresh_hours) == (release.key, build_id(2), 1)


def test_builds_of_chosen_stages_confirm_no_release_and_without_the_setting_none_is_stale(store: Store) -> None:
    built(store, TOY, build=build_id(1))
    lock = store.root / "toy" / "builds" / f"{build_id(1)}.yaml"
    text = lock.read_text().replace(build_id(1), build_id(3)) + "selection: {only: [echo]}\nfresh_hours: 1\n"
    store.write_build("toy", build_id(3), text)
    [release] = releases(store)
    assert release.build == build_id(1)
    assert release.stale(BEGAN + timedelta(days=10_000)) is None


def test_what_a_release_stands_on_may_have_been_made_anew(store: Store) -> None:
    built(store, TOY, build=build_id(1))
    runner(store).run(words_stage("a", "d"), [], [])
    [release] = releases(store)
    assert (release.build, release.behind) == (build_id(1), "words has been rebuilt")


def test_the_command_lists_releases_and_fails_on_request_if_one_is_stale(store: Store) -> None:
    app = typer.Typer()
    app.command()(command)
    where = ["--store", str(store.root)]
    with pytest.raises(UsageError, match="has no releases yet"):
        CliRunner().invoke(app, where, catch_exceptions=False)
    with pytest.raises(UsageError, match="--check covers all systems: leave out SYSTEM"):
        CliRunner().invoke(app, [*where, "toy", "--check"], catch_exceptions=False)
    built(store, TOY, build=build_id(1))
    built(store, TOY, build=build_id(2), system="old", fresh_hours=0.5)
    ran = CliRunner().invoke(app, [*where, "--check"])
    assert ran.exit_code == 1
    assert "stale: last confirmed" in ran.stdout
    [old, toy] = json.loads(CliRunner().invoke(app, [*where, "--json"]).stdout)
    assert (old["system"], old["stale"], toy["system"], toy["stale"], toy["until"]) == ("old", True, "toy", False, None)


def test_what_a_build_spent_is_in_its_lock(store: Store) -> None:
    priced = SCRIPTED.model_copy(update={"options": {"words": 4, "price_in": 2.0}})
    stage = echo_stage(words_stage("a", "b", "c"), model=priced)
    made = built(store, stage, build=build_id(1))
    [table] = [one for one in store.newest("toy") if one.stage == "echo"]
    spent = Spent.of([stage], {"echo": (table, False)})
    assert table.work is not None
    assert spent.cost == pytest.approx(table.work.usage["prompt_tokens"] * 2 / 1e6)
    assert (spent.currency, spent.requests) == ("USD", 3)
    assert str(spent) == f"3 requests, 0 tokens read, 0 written, {spent.cost:.4f} USD"
    assert made.spent == Spent()  # of a build that found its tables
    request = BuildRequest(system="toy")
    assert reuse(stage, request=request, store=store) is not None
    assert [lock.spent for lock in locks(store, "toy")] == [Spent(), Spent()]


def test_without_a_price_nothing_is_said_of_cost(store: Store) -> None:
    built(store, TOY, build=build_id(1))
    [table] = [one for one in store.newest("toy") if one.stage == "echo"]
    spent = Spent.of([TOY], {"echo": (table, False)})
    assert (spent.cost, spent.tokens_in, spent.tokens_out) == (None, table.tokens_in, table.tokens_out)


def test_a_release_whose_locks_are_gone_is_confirmed_by_none(store: Store) -> None:
    built(store, TOY, build=build_id(1))
    (store.root / "toy" / "builds" / f"{build_id(1)}.yaml").unlink()
    assert releases(store) == []

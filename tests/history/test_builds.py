from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from normloom.core.errors import StoreError, UsageError
from normloom.history.builds import accounts, find_build, locks
from normloom.history.unfinished import UnfinishedBuild, recorded, unfinished
from normloom.planning.costs.spent import Spent
from normloom.store.layout import BUILDS
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

LOCK = "system: {system}\nbuild: {build}\nstages:\n  words: {{key: k, content: c, rows: 1}}\n"


def written(store: Store, *builds: str, system: str = "toy") -> None:
    for build in builds:
        store.write_build(system, build, LOCK.format(system=system, build=build))


def test_reads_what_a_build_left(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a", "b")
    built(store, echo_stage(words, drop="b"), build=build_id(1), profile="local", settings=["x=1"])
    (lock,) = locks(store, "toy")
    assert (lock.system, lock.build, lock.profile, list(lock.settings)) == ("toy", build_id(1), "local", ["x=1"])
    assert lock.started == datetime(2026, 11, 22, 0, 0, 1, tzinfo=UTC)
    echo = lock.stages["echo"]
    current = store.current("toy", "echo")
    assert current is not None
    assert (echo.key, echo.content, echo.rows, echo.dropped) == (current.key, current.content, 1, 1)
    assert echo.model is not None
    assert echo.model["model"] == "toy"


def test_keys_that_it_does_not_know_are_left_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_build("toy", "one", LOCK.format(system="toy", build="one") + "host: here\n")
    assert find_build(store, "one").started is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("stages: [", "while parsing"),
        ("system: toy\nbuild: one\n", "stages: Field required"),
        ("system: toy\nbuild: one\nstages: {words: {content: c, rows: 1}}\n", "stages.words.key: Field required"),
        ("", "the whole: Input should be"),
    ],
)
def test_a_damaged_lock_is_named(tmp_path: Path, text: str, why: str) -> None:
    store = Store(tmp_path)
    path = store.write_build("toy", "one", text)
    with pytest.raises(StoreError) as caught:
        locks(store, "toy")
    assert str(caught.value).startswith(f"the lock {path} is damaged ({why}")


def test_locks_are_in_the_order_of_their_builds_and_of_writing_within_a_second(tmp_path: Path) -> None:
    store = Store(tmp_path)
    order = ["20261121T235959-0000", "20261122T000000-ffff", "20261122T000000-0000", "20261122T000001-8888"]
    for written_at, build in enumerate(order):
        path = store.write_build("toy", build, LOCK.format(system="toy", build=build))
        os.utime(path, (written_at, written_at))
    assert [lock.build for lock in locks(store, "toy")] == order
    assert [lock.build for lock in locks(store, "toy", newest=2)] == order[2:]
    assert [lock.build for lock in locks(store, "toy", newest=9)] == order
    assert locks(store, "toy", newest=0) == locks(store, "nothing") == []


def test_a_build_is_found_by_id_by_either_end_and_by_how_long_ago(tmp_path: Path) -> None:
    store = Store(tmp_path)
    builds = ["20261121T101500-aaaa", "20261122T101500-bbbb", "20261122T111500-cccc"]
    written(store, *builds)
    for text, place in {
        builds[0]: 0,
        "20261121": 0,
        "bbbb": 1,
        "20261122T11": 2,
        "last": 2,
        "last~0": 2,
        "last~1": 1,
        "previous": 1,
        "last~2": 0,
    }.items():
        assert find_build(store, text).build == builds[place], text


def test_an_id_that_is_the_end_of_another_is_meant_itself(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written(store, "one", "twenty-one")
    assert find_build(store, "one").build == "one"


def test_a_build_that_is_not_meant_clearly_is_refused_with_those_there_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match=r"unknown build 'x' in .*; no builds yet: run normloom build first"):
        find_build(store, "x")
    with pytest.raises(UsageError, match="has no builds yet"):
        find_build(store, "last")
    written(store, *(build_id(number) for number in range(7)))
    with pytest.raises(UsageError) as unknown:
        find_build(store, "x")
    newest = ", ".join(build_id(number) for number in (6, 5, 4, 3, 2))
    assert str(unknown.value) == f"unknown build 'x' in {tmp_path}; the newest are {newest}, ..."
    with pytest.raises(UsageError, match=rf"'2026' matches 7 builds: {newest}, ...; give more of the id"):
        find_build(store, "2026")
    with pytest.raises(UsageError, match="unknown build '' in"):
        find_build(store, "")
    with pytest.raises(UsageError, match=r"unknown build 'last~7': .* has only 7 builds: "):
        find_build(store, "last~7")


def test_of_several_systems_the_one_that_is_named_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written(store, build_id(1))
    written(store, build_id(2), system="other")
    with pytest.raises(UsageError, match="has builds of other, toy: say which with --system"):
        find_build(store, "last")
    assert find_build(store, "last", system="toy").build == build_id(1)
    assert find_build(store, build_id(2)).system == "other"
    with pytest.raises(UsageError, match=f"unknown build '{build_id(2)}' of toy in"):
        find_build(store, build_id(2), system="toy")


def test_a_build_tells_what_it_made_and_reused_and_what_is_gone(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a", "b", "c")
    built(store, echo_stage(words), build=build_id(1))
    built(store, echo_stage(words, drop="c"), build=build_id(2))
    first, second = accounts(store, "toy")
    assert (first.made, first.reused, first.gone, first.released) == (["words", "echo"], [], [], {"echo": 3})
    assert (second.made, second.reused, second.gone, second.released) == (["echo"], ["words"], [], {"echo": 2})
    (store.directory("toy", "echo", first.lock.stages["echo"].key) / "manifest.json").unlink()
    first, second = accounts(store, "toy")
    assert (first.made, first.gone, first.released) == (["words"], ["echo"], {"echo": 3})
    assert [account.lock.build for account in accounts(store, "toy", 1)] == [build_id(2)]


@contextmanager
def failing(store: Store, spent: Spent) -> Iterator[None]:
    with recorded(store, UnfinishedBuild(system="toy", build=build_id(1))) as record:
        record.spends(Spent(tokens_in=1))
        yield
        record.ended(KeyError("x"), spent=spent)
        raise KeyError("x")


def test_a_build_that_failed_says_what_it_had_asked_of_models(tmp_path: Path) -> None:
    store, spent = Store(tmp_path), Spent(tokens_in=100, tokens_out=20, requests=3, cost=0.5, currency="EUR")
    with recorded(store, UnfinishedBuild(system="toy", build=build_id(2))):
        pass
    with pytest.raises(KeyError), failing(store, spent):
        pass
    [left] = unfinished(store, "toy")
    assert left.spent == spent
    assert left.state == "failed"


def test_a_file_that_is_no_record_of_a_build_is_left_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with recorded(store, UnfinishedBuild(system="toy", build=build_id(1))):
        [record] = (store.root / "toy" / BUILDS).glob("[!.]*.json")
        record.with_name("0.json").write_text("{}")
        assert [left.build for left in unfinished(store, "toy")] == [build_id(1)]

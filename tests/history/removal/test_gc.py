from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.errors import StoreError, UsageError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.history.builds import BuildLock, locks
from normloom.history.removal.gc import Collection, Garbage, collect, idle, remove
from normloom.store.layout import MANIFEST, MARKERS, REUSED
from normloom.store.parts import Writer, write_part
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage

DAY = timedelta(days=1).total_seconds()


def chain(*words: str, **arguments: object) -> Stage:
    return echo_stage(words_stage(*words), **arguments)  # type: ignore[arg-type]  # any of its arguments


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three builds, each with its own two tables."""
    made = Store(tmp_path / "store")
    for number, words in enumerate(("abc", "abd", "abe")):
        built(made, chain(*words), build=build_id(number))
    return made


def published(store: Store) -> set[tuple[str, str]]:
    """Return stage and key of every manifest there is."""
    return {(path.parent.parent.name, path.parent.name) for path in store.root.glob(f"toy/*/*/{MANIFEST}")}


def named(*builds: BuildLock) -> set[tuple[str, str]]:
    return {(stage, entry.key) for lock in builds for stage, entry in lock.stages.items()}


def verifies(store: Store, stage: str, key: str) -> bool:
    manifest = store.published("toy", stage, key)
    kept = store.parts(store.directory("toy", stage, key)).values()
    return manifest is not None and all(one.is_as(own) for one, own in zip(kept, manifest.parts, strict=True))


def files(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name != "running"}


def whats(found: Collection | list[Garbage]) -> list[tuple[str, str, str]]:
    garbage = found.garbage if isinstance(found, Collection) else found
    return sorted((item.what, item.stage, item.path.name) for item in garbage)


def age(directory: Path, days: float) -> None:
    moment = time.time() - days * DAY
    for path in (*directory.iterdir(), directory):
        os.utime(path, (moment, moment))


def interrupted(store: Store, *, key: str = "0" * 20, parts: int = 1) -> Path:
    """Leave the directory of a table as an interrupted build does."""
    table = store.current("toy", "echo")
    assert table is not None
    directory = Path(shutil.copytree(store.table_directory(table.ref), store.directory("toy", "echo", key)))
    finished = list(store.parts(directory).values())
    for path in [directory / MANIFEST, directory / REUSED, *directory.glob(MARKERS)]:
        path.unlink(missing_ok=True)
    for part in finished[:parts]:
        write_part(directory, part, writer="any")
    return directory


def test_tables_of_the_last_builds_and_the_newest_stay(store: Store) -> None:
    first, second, third = locks(store, "toy")
    store.point(runner(store).run(words_stage("a", "b", "c"), [], [])[0].ref)  # the newest words are the oldest build's
    found = collect(store, "toy", keep=1)
    assert whats(found) == sorted(
        ("table", stage, key) for stage, key in named(second) | {("echo", first.stages["echo"].key)}
    )
    assert [item.parts for item in found.garbage if item.stage == "echo"] == [2, 2]
    tables: dict[int, set[Path]] = {}  # file -> tables with a name for it: parts are shared, as are a release's files
    for path in store.root.glob("toy/*/*/*"):
        tables.setdefault(path.stat().st_ino, set()).add(path.parent)
    sizes = {
        item.path: sum(
            path.stat().st_size
            for path in item.path.iterdir()
            if path.is_file() and tables[path.stat().st_ino] == {item.path}
        )
        for item in found.garbage
    }
    assert {item.path: item.bytes for item in found.garbage} == sizes
    assert whats(remove(store, found)) == whats(found)
    assert published(store) == named(third) | {("words", first.stages["words"].key)}
    assert not any(path.exists() for path in sizes)
    assert all(verifies(store, *table) for table in published(store))
    assert locks(store, "toy") == [first, second, third]
    assert collect(store, "toy", keep=1).garbage == []


def test_what_was_removed_is_made_again(store: Store) -> None:
    first = locks(store, "toy")[0]
    remove(store, collect(store, "toy", keep=1))
    assert not named(first) & published(store)
    again = built(store, chain(*"abc"), build=build_id(9))
    assert again.stages == first.stages
    assert all(verifies(store, *table) for table in named(again))


def test_only_what_was_shown_goes_and_only_while_it_may(store: Store) -> None:
    shown = collect(store, "toy", keep=2)
    assert len(shown.garbage) == 2
    built(store, chain(*"abf"), build=build_id(5))  # the second build's tables may go now, but were not shown
    built(store, chain(*"abc"), build=build_id(6))  # the first build's tables, which were, are wanted again
    before = files(store)
    assert remove(store, shown) == []
    assert files(store) == before


def test_a_remake_stays_with_the_table_that_it_stands_for(store: Store) -> None:
    base = built(store, chain(*"abe"), build=build_id(3))
    remade = built(store, chain(*"abe"), build=build_id(4), force=["echo"])
    base_echo, remade_echo = (lock.stages["echo"].key for lock in (base, remade))
    assert base_echo != remade_echo
    built(store, chain(*"abz"), build=build_id(5))
    (store.root / "toy" / "builds" / f"{build_id(4)}.yaml").unlink()
    remove(store, collect(store, "toy", keep=2))  # of build 5 and of build 3, which names the table before its remake
    assert {("echo", base_echo), ("echo", remade_echo)} <= published(store)


def test_the_pointer_to_a_remake_that_stays_does_too_so_that_builds_find_it(store: Store) -> None:
    base = built(store, chain(*"abe"), build=build_id(3)).stages["echo"].key
    remade = built(store, chain(*"abe"), build=build_id(4), force=["echo"])
    remove(store, collect(store, "toy", keep=1))
    assert published(store) == named(remade)
    assert [path.name for path in store.directory("toy", "echo", base).iterdir()] == ["superseded"]
    assert collect(store, "toy", keep=1).garbage == []
    assert built(store, chain(*"abe"), build=build_id(5)).stages == remade.stages
    built(store, chain(*"abz"), build=build_id(6))
    remove(store, collect(store, "toy", keep=1))
    assert not store.directory("toy", "echo", base).exists()


def test_files_that_a_replay_shares_with_the_table_before_it_free_nothing(store: Store) -> None:
    stage = chain("a", "b", "c", "d", aside="d")
    base = built(store, stage, build=build_id(3)).stages["echo"].key
    words = store.current("toy", "words")
    assert words is not None
    runner(store).run(stage, [words.ref], [], again="quarantined")
    replayed = built(store, stage, build=build_id(4))
    found = collect(store, "toy", keep=1)
    (item,) = [item for item in found.garbage if item.path == store.directory("toy", "echo", base)]
    stays = store.table_directory(store.manifest(store.current("toy", "echo").ref).ref)  # type: ignore[union-attr]  # built
    kept = {path.stat().st_ino for path in stays.rglob("*")}
    files = [path for path in item.path.iterdir() if path.is_file()]
    shared = [path for path in files if path.stat().st_ino in kept]
    alone = [path for path in files if path not in shared and path.name != "superseded"]
    assert len(shared) == 1  # the rows of the part that stays
    assert item.bytes == sum(path.stat().st_size for path in alone)
    remove(store, found)
    assert published(store) == named(replayed)
    assert all(verifies(store, *table) for table in named(replayed))


@pytest.mark.parametrize(("days", "goes"), [(6.9, False), (7.1, True)])
def test_what_an_interrupted_build_left_stays_for_some_days(store: Store, days: float, goes: bool) -> None:
    directory = interrupted(store)
    age(directory, days)
    found = collect(store, "toy")
    assert whats(found) == ([("partial", "echo", directory.name)] if goes else [])
    remove(store, found)
    assert directory.exists() is not goes


def test_one_file_that_was_touched_keeps_the_rest(store: Store) -> None:
    directory = interrupted(store)
    age(directory, 9)
    os.utime(directory / "part-00000.json")
    assert collect(store, "toy").garbage == []


def test_an_unpublished_table_without_a_finished_part_holds_nothing_to_go_on_from(store: Store) -> None:
    directory = interrupted(store, parts=0)
    assert whats(collect(store, "toy")) == [("partial", "echo", directory.name)]


def test_a_table_whose_lock_is_held_stays(store: Store) -> None:
    directory = interrupted(store, parts=0)
    shown = collect(store, "toy", keep=1)
    old = next(item.path for item in shown.garbage if item.what == "table")
    with (
        store.lock(directory, Writer.of("other"), waiting=pytest.fail),
        store.lock(old, Writer.of("other"), waiting=pytest.fail),
    ):
        assert {directory, old} & {item.path for item in collect(store, "toy", keep=1).garbage} == set()
        gone = remove(store, shown)
    assert directory.exists()
    assert old.exists()
    assert len(gone) == len(shown.garbage) - 2


def test_stray_files_go(store: Store) -> None:
    table = store.current("toy", "echo")
    assert table is not None
    directory = store.table_directory(table.ref)
    strays = [
        directory / ".rows-00000-ab12cd.parquet.99.tmp",
        directory.parent / ".current.99.tmp",
        store.root / "toy" / "builds" / ".one.yaml.99.tmp",
        interrupted(store) / ".part-00001.json.99.tmp",
    ]
    for stray in strays:
        stray.write_text("half")
        os.utime(stray, (time.time() - 1.1 * DAY,) * 2)
    unnamed = directory / "rows-00000-ab12cd.parquet"
    unnamed.write_text("of a writer that lost")
    (directory / ".young.tmp").write_text("at work")
    (directory / "notes.txt").write_text("of a person")
    found = collect(store, "toy")
    assert {item.path for item in found.garbage} == {*strays, unnamed}
    assert {item.what for item in found.garbage} == {"leftover"}
    before = files(store)
    remove(store, found)
    assert files(store) == before - {str(path.relative_to(store.root)) for path in (*strays, unnamed)}
    assert verifies(store, "echo", table.key)


def test_a_system_that_is_being_built_is_refused(store: Store) -> None:
    shown = collect(store, "toy", keep=1)
    before = files(store)
    with (
        store.building("toy"),
        pytest.raises(StoreError, match=f"a build of toy is running in {store.root}: run this again"),
    ):
        remove(store, shown)
    assert files(store) == before
    assert len(remove(store, shown)) == 4


def test_no_build_goes_on_while_tables_are_removed(store: Store) -> None:
    with (
        idle(store, "toy"),
        (store.root / "toy" / "builds" / "running").open("a") as handle,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with store.building("toy"):
        pass


def test_nothing_outside_the_store_is_followed_or_touched(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    key = "1" * 20
    (outside / key).mkdir(parents=True)
    (outside / key / MANIFEST).write_text("{}")
    (outside / "file").write_text("keep")
    (store.root / "toy" / "linked").symlink_to(outside)
    (store.root / "toy" / "echo" / ("2" * 20)).symlink_to(outside / key)
    old = collect(store, "toy", keep=1).garbage[0].path
    (old / "file").symlink_to(outside / "file")
    (old / "directory").symlink_to(outside)
    (old / "nested").mkdir()
    (old / "nested" / "link").symlink_to(outside)
    remove(store, collect(store, "toy", keep=1))
    assert not old.exists()
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == [key, f"{key}/{MANIFEST}", "file"]
    shutil.move(store.root / "toy", tmp_path / "elsewhere")
    (store.root / "toy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a symbolic link, and gc removes nothing outside the store"):
        collect(store, "toy")


def test_directories_that_are_no_tables_stay(store: Store) -> None:
    (store.root / "toy" / "echo" / "my-notes").mkdir()
    (store.root / "toy" / "echo" / ".hidden").mkdir()
    assert collect(store, "toy").garbage == []


def test_a_damaged_lock_stops_it(store: Store) -> None:
    path = store.write_build("toy", build_id(8), "stages: [")
    with pytest.raises(StoreError, match=f"the lock {path} is damaged"):
        collect(store, "toy", keep=2)


def test_a_system_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=f"unknown system '../toy' in {store.root}; did you mean toy"):
        collect(store, "../toy")


KILLED = """
import os, signal, sys
from pathlib import Path
from normloom.history.removal.gc import collect, remove
from normloom.store.store import Store

left = int(sys.argv[2])

def removing(event, arguments):
    global left
    if event in ("os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

store = Store(Path(sys.argv[1]))
shown = collect(store, "toy", keep=1)
sys.addaudithook(removing)
remove(store, shown)
"""


@pytest.mark.parametrize("removals", [0, 1, 3, 5, 12, 29])
def test_a_kill_while_tables_are_removed_is_made_good_by_the_next_run(store: Store, removals: int) -> None:
    whole = Store(store.root.parent / "whole")
    shutil.copytree(store.root, whole.root, symlinks=True)
    remove(whole, collect(whole, "toy", keep=1))
    last = locks(store, "toy")[-1]

    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), str(removals)], check=False)
    assert killed.returncode == -9
    assert all(store.published("toy", *table) for table in published(store))  # a table without its files is none
    assert all(verifies(store, *table) for table in named(last))

    remove(store, collect(store, "toy", keep=1))
    assert files(store) == files(whole)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with tables of several builds, two of them remakes, and the texts of their locks."""
    store = Store(tmp_path_factory.mktemp("variants") / "store")
    texts = []
    for number, (words, force) in enumerate(
        [("abc", ()), ("abd", ()), ("abc", ("echo",)), ("xyz", ()), ("xyz", ("words",)), ("abc", ("echo",))]
    ):
        built(store, chain(*words), build=build_id(number), force=force)
        path = store.root / "toy" / "builds" / f"{build_id(number)}.yaml"
        texts.append(path.read_text().replace(build_id(number), "BUILD"))
        path.unlink()
    return store.root, texts


@settings(max_examples=40)
@given(
    order=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    keep=st.integers(1, 4),
    pointed=st.fixed_dictionaries({stage: st.integers(0, 5) for stage in ("words", "echo")}),
)
def test_all_that_recent_builds_name_verifies_and_all_else_is_gone(
    variants: tuple[Path, list[str]], order: list[int], keep: int, pointed: dict[str, int]
) -> None:
    template, texts = variants
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        shutil.copytree(template, store.root)
        for number, variant in enumerate(order):
            store.write_build("toy", build_id(number), texts[variant].replace("BUILD", build_id(number)))
        every = [BuildLock.model_validate(yaml.safe_load(text)) for text in texts]
        current = {(stage, every[variant].stages[stage].key) for stage, variant in pointed.items()}
        for stage, key in current:
            store.point(_manifest(store, stage, key).ref)
        kept = named(*locks(store, "toy")[-keep:]) | current
        pointers = {
            (path.parent.parent.name, path.parent.name): path.read_text().strip()
            for path in store.root.glob("toy/*/*/superseded")
        }
        kept |= {(stage, pointers[stage, key]) for stage, key in kept if (stage, key) in pointers}

        remove(store, collect(store, "toy", keep=keep))

        assert published(store) == kept
        assert all(verifies(store, *table) for table in kept)
        assert len(locks(store, "toy")) == len(order)
        assert collect(store, "toy", keep=keep).garbage == []
        for (stage, key), remade in pointers.items():  # who has the key of a table still finds the remake of it
            if (stage, remade) in kept:
                existing = store.resolved("toy", stage, key)
                assert existing is not None
                assert existing.key == remade


def _manifest(store: Store, stage: str, key: str) -> Manifest:
    manifest = store.published("toy", stage, key)
    assert manifest is not None
    return manifest

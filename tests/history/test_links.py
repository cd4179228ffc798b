"""Tables, links and keys that lead nowhere are found and named, and made good by the next build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from normloom.core.stage import published_stage
from normloom.core.table import Manifest
from normloom.history.builds import BuildLock
from normloom.history.links import broken_links
from normloom.store.latest import LATEST
from normloom.store.layout import MANIFEST, SUPERSEDED
from normloom.store.locks.hold import Hold
from normloom.store.store import Store
from normloom.store.verify import repair, verify
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

FLOW = echo_stage(words_stage(*"abcdef"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    build(store, 1)
    assert [*broken_links(store), *verify(store)] == []
    return store


def build(store: Store, number: int, *, force: bool = False) -> BuildLock:
    return built(store, FLOW, build=build_id(number), force=["echo"] if force else [])


def table(store: Store, stage: str) -> Manifest:
    found = store.current("toy", stage)
    assert found
    return found


def mended(store: Store) -> bool:
    repair(store, [*verify(store), *broken_links(store)], Hold())
    build(store, 9)
    return [*verify(store), *broken_links(store)] == []


@pytest.mark.parametrize("stage", ["words", "echo"])
def test_a_deleted_table_is_missed_by_the_build_that_made_it(store: Store, stage: str) -> None:
    key = table(store, stage).key
    shutil.rmtree(store.directory("toy", stage, key))
    [found] = [one for one in broken_links(store) if one.file == MANIFEST]
    assert str(found) == (
        f"table toy/{stage}/{key}: manifest.json is missing, and with it a table of build {build_id(1)}"
    )
    assert mended(store)
    assert table(store, stage).key == key


def test_a_link_to_a_release_that_is_missing_is_broken(store: Store) -> None:
    key = table(store, "echo").key
    shutil.rmtree((store.root / "toy" / LATEST).resolve())
    [found] = broken_links(store)
    assert str(found) == f"table toy/echo/{key}: latest leads to a release that is missing"
    assert mended(store)


def test_a_remake_that_is_missing_is_named(store: Store) -> None:
    first = table(store, "echo").key
    build(store, 2, force=True)
    second = table(store, "echo").key
    shutil.rmtree(store.directory("toy", "echo", second))
    assert {(one.key, one.file) for one in broken_links(store)} >= {(first, SUPERSEDED), (second, MANIFEST)}
    assert mended(store)


def test_a_key_that_is_not_that_of_its_fields_is_found(store: Store) -> None:
    path = store.table_directory(table(store, "echo").ref) / MANIFEST
    content = json.loads(path.read_text())
    content["key_fields"]["arguments"]["copies"] = 5
    path.write_text(Manifest.model_validate(content).sealed().model_dump_json())
    [found] = broken_links(store)
    assert found.problem == "was edited: its key is not that of its fields"
    assert mended(store)


def test_rows_whose_parents_are_in_no_table_are_found(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    built(other, echo_stage(words_stage(*"uvwxyz")), build=build_id(1))
    mine, theirs = table(store, "words"), table(other, "words")
    for path in store.table_directory(mine.ref).glob("*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for path in other.table_directory(theirs.ref).glob("*"):
        if path.is_file():
            shutil.copy(path, store.table_directory(mine.ref))
    moved = theirs.model_copy(update={"key": mine.key, "key_fields": mine.key_fields})
    (store.table_directory(mine.ref) / MANIFEST).write_text(moved.sealed().model_dump_json())
    [found] = broken_links(store)
    assert (found.stage, found.file) == ("echo", "parents")
    assert found.problem.startswith("of its rows are missing from all tables upstream: 6, such as ")


def test_a_table_of_another_system_that_was_read_and_is_missing_is_named(store: Store) -> None:
    words = table(store, "words")
    reader = echo_stage(published_stage(words.ref, reader="other"))
    built(store, reader, build=build_id(2), system="other")
    shutil.rmtree(store.table_directory(words.ref))
    [found] = [one for one in broken_links(store, "other") if one.file == MANIFEST]
    echo = store.current("other", "echo")
    assert echo
    assert str(found) == f"table {words.ref}: manifest.json is missing, and table {echo.ref} reads it"

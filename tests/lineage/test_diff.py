from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from normloom.core.errors import StoreError, UsageError
from normloom.core.stage import Stage
from normloom.history.builds import BuildLock
from normloom.lineage.diff import StageDiff, diff
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import SCRIPTED, echo_stage, words_stage

OTHER = SCRIPTED.model_copy(update={"model": "other"})


def compared(store: Store, before: Stage, after: Stage, *, force: tuple[str, ...] = ()) -> dict[str, StageDiff]:
    first, second = built(store, before, build=build_id(1)), built(store, after, build=build_id(2), force=force)
    return {stage.stage: stage for stage in diff(first, second, store)}


def test_a_stage_with_the_same_key_is_the_same_table(tmp_path: Path) -> None:
    words = words_stage("a", "b")
    found = compared(Store(tmp_path), echo_stage(words), echo_stage(words))
    assert {name: stage.state for name, stage in found.items()} == {"words": "same", "echo": "same"}
    assert all(stage.table is None and stage.fields == () for stage in found.values())


def test_rows_and_reasons_are_counted_over_two_builds(tmp_path: Path) -> None:
    before = echo_stage(words_stage(*"abcdef"), drop="b", aside="c")
    after = echo_stage(words_stage(*"abcdeg"), drop="d")
    found = compared(Store(tmp_path), before, after)
    words, echo = found["words"].table, found["echo"].table
    assert words is not None
    assert (words.added, words.removed, words.changed) == (1, 1, 0)
    assert found["words"].fields == ["arguments.words[5]"]
    assert echo is not None
    assert (echo.added, echo.removed, echo.changed) == (3, 2, 0)  # b, c and g come; d and f go
    assert found["echo"].fields == ["arguments.aside", "arguments.drop", "inputs[0]"]
    assert found["echo"].dropped == {"asked for": (1, 1)}
    assert found["echo"].quarantined == {"asked": (1, 0)}


def test_changed_values_are_shown_from_old_to_new(tmp_path: Path) -> None:
    store, words = Store(tmp_path), words_stage("a", "b", "c")
    found = compared(store, echo_stage(words), echo_stage(words, model=OTHER))
    echo = found["echo"].table
    assert echo is not None
    assert (echo.added, echo.removed, echo.changed, echo.changed_in) == (0, 0, 3, {"echo": 3})
    assert found["echo"].fields == ["model.model"]
    assert found["echo"].refs is not None
    old, new = (store.scan(ref).collect().sort("row_id")["echo"].to_list() for ref in found["echo"].refs)
    assert [row.values["echo"] for row in echo.examples] == list(zip(old, new, strict=True))


def test_a_table_made_again_with_the_same_rows_is_told_apart(tmp_path: Path) -> None:
    words = words_stage("a", "b")
    found = compared(Store(tmp_path), echo_stage(words), echo_stage(words), force=("echo",))
    assert found["words"].state == "same"
    assert (found["echo"].state, found["echo"].fields, found["echo"].table) == ("reproduced", ["remake"], None)


def test_stages_that_one_build_lacks(tmp_path: Path) -> None:
    words = words_stage("a", "b")
    found = compared(Store(tmp_path / "more"), words, echo_stage(words))
    assert {name: stage.state for name, stage in found.items()} == {"words": "same", "echo": "added"}
    found = compared(Store(tmp_path / "less"), echo_stage(words), words)
    assert {name: stage.state for name, stage in found.items()} == {"words": "same", "echo": "removed"}


def test_a_table_that_is_gone_costs_its_own_comparison_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = built(store, echo_stage(words_stage("a", "b")), build=build_id(1))
    second = built(store, echo_stage(words_stage("a", "c")), build=build_id(2))
    shutil.rmtree(store.directory("toy", "words", first.stages["words"].key))
    words, echo = diff(first, second, store)
    assert (words.state, words.gone, words.table) == ("changed", ("before",), None)
    assert (echo.state, echo.gone) == ("changed", ())
    assert echo.table is not None
    assert (echo.table.added, echo.table.removed) == (1, 1)
    assert diff(second, first, store)[0].gone == ("after",)


def test_parts_that_both_tables_hold_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before, after = (echo_stage(words_stage(*words)) for words in ("abcdefgh", "abcdefgz"))
    first, second = built(store, before, build=build_id(1)), built(store, after, build=build_id(2))
    current = store.current("toy", "echo")
    assert current is not None
    sums = sorted((part.files["rows"].checksum, part.files["rows"].name) for part in current.parts[:3])
    directory = store.table_directory(current.ref)
    for _, name in sums[1:]:  # of the parts that are the same one is read, for its columns
        path = directory / name
        path.write_bytes(bytes(path.stat().st_size))
    _, echo = diff(first, second, store)
    assert echo.table is not None
    assert (echo.table.added, echo.table.removed, echo.table.changed) == (1, 1, 0)


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = built(store, words_stage("a"), build=build_id(1))
    second = built(store, words_stage("b"), build=build_id(2))
    manifest = store.current("toy", "words")
    assert manifest is not None
    ((path, _),) = manifest.files(store.table_directory(manifest.ref))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(StoreError, match=f"tables toy/words/.* and {manifest.ref} cannot be compared: .*{path.name}"):
        diff(first, second, store)


def test_builds_of_two_systems_are_refused(tmp_path: Path) -> None:
    lock = BuildLock(system="toy", build="one", stages={})
    other = BuildLock(system="other", build="two", stages={})
    with pytest.raises(UsageError, match="build one is of toy and build two of other: give two builds of one system"):
        diff(lock, other, Store(tmp_path))

"""Exports of a store of which parts are gone, or that an earlier Normloom wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from normloom.core.errors import StoreError, UsageError
from normloom.core.stage import published_stage
from normloom.exports.export import export
from normloom.history.releases import versions
from normloom.run.build import BuildRequest, reuse
from normloom.run.release import ReleaseSize
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, runner, words_stage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    built(store, echo_stage(words_stage(*"ab")), build=build_id(1))
    built(store, echo_stage(words_stage(*"abc")), build=build_id(2))
    return store


def card(store: Store, system: str, tmp_path: Path) -> str:
    export(store, system, tmp_path / "out")
    return (tmp_path / "out" / "README.md").read_text()


def table(store: Store, system: str, stage: str) -> Path:
    found = store.current(system, stage)
    assert found
    return store.table_directory(found.ref)


def test_a_release_that_an_earlier_version_made_is_recorded(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(store.root / "toy" / "builds" / "releases")
    made = export(store, "toy", tmp_path / "out")
    assert (made.release.version, made.release.build, made.release.rows) == ("1.0.0", build_id(2), 3)
    assert versions(store, "toy") == [made.release]


def test_a_release_whose_table_is_gone_is_refused(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(table(store, "toy", "echo"))
    with pytest.raises(UsageError, match=r"the table of toy 1\.1\.0 is no longer in .*: export another version"):
        export(store, "toy", tmp_path / "out")
    shutil.rmtree(store.root / "toy" / "builds" / "releases")
    with pytest.raises(StoreError, match=r"has no lock of its build, or files of it are missing: build it again"):
        export(store, "toy", tmp_path / "out")


def test_tables_on_the_way_that_are_gone_are_named(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(table(store, "toy", "words"))
    assert "Tables no longer in the store, and so not described here: words." in card(store, "toy", tmp_path)


def test_a_small_model_and_one_without_a_known_licence_are_told(store: Store, tmp_path: Path) -> None:
    path = table(store, "toy", "echo") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["key_fields"]["model"] |= {"engine": "transformers", "model": "SmolLM2-135M-Instruct"}
    path.write_text(json.dumps(manifest))
    assert "A model of 135 million parameters took part" in card(store, "toy", tmp_path)
    manifest["key_fields"]["model"] |= {"model": "nobody/nothing", "revision": "main"}
    path.write_text(json.dumps(manifest))
    export(Store(store.root), "toy", tmp_path / "out", overwrite=True)
    assert "| nobody/nothing | main | unknown |" in (tmp_path / "out" / "README.md").read_text()


def test_a_release_without_rows_is_not_exported(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    words = words_stage()
    runner(store).run(words, [], [])
    assert reuse(words, request=BuildRequest(system="toy", release=ReleaseSize(min_rows=0)), store=store)
    with pytest.raises(UsageError, match=r"toy 1\.0\.0 has no rows to export"):
        export(store, "toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_system_of_which_nothing_is_left_is_left_out(store: Store, tmp_path: Path) -> None:
    words = store.current("toy", "words")
    assert words
    reader = echo_stage(published_stage(words.ref, reader="other"))
    built(store, reader, build=build_id(3), system="other")
    whole = card(store, "other", tmp_path / "whole")
    for stage in ("words", "echo"):
        shutil.rmtree(table(store, "toy", stage))
    without = card(store, "other", tmp_path / "tables")
    shutil.rmtree(store.root / "toy" / "builds")
    assert "## How toy was made" not in without
    assert card(store, "other", tmp_path / "locks") == without != whole

"""The number of a store's format: newer stores are refused, older ones are read and marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from normloom.core.errors import StoreError
from normloom.history.removal.gc import collect, old_tables, remove
from normloom.store.layout import FORMAT, FORMAT_FILE, MANIFEST
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import words_stage


def test_a_build_marks_the_store_and_an_older_one_is_read_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, words_stage("a"), build=build_id(1))
    with store.building("toy"):
        assert (tmp_path / FORMAT_FILE).read_text() == f"{FORMAT}\n"
    (tmp_path / FORMAT_FILE).unlink()
    assert Store(tmp_path).current("toy", "words")


def test_a_newer_store_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FORMAT_FILE).write_text(f"{FORMAT + 1}\n")
    with pytest.raises(StoreError, match=rf"has format {FORMAT + 1}, written by a newer Normloom.*upgrade Normloom"):
        Store(tmp_path)
    (tmp_path / FORMAT_FILE).write_text("two\n")
    with pytest.raises(StoreError, match="must hold the number"):
        Store(tmp_path)


def test_tables_with_keys_of_an_earlier_format_are_told_and_can_be_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, words_stage("a"), build=build_id(1))
    assert old_tables(store, "toy") == ""
    assert not collect(store, "toy", old_keys=True).garbage
    table = store.current("toy", "words")
    assert table is not None
    path = store.table_directory(table.ref) / MANIFEST
    content = json.loads(path.read_text())
    content["key_fields"]["format"] = 1
    path.write_text(json.dumps(content))
    assert old_tables(store, "toy").startswith("1 table of toy in ")
    assert not collect(store, "toy").garbage
    (store.root / "toy" / "latest").unlink(missing_ok=True)
    shown = collect(store, "toy", old_keys=True)
    assert [(item.what, item.stage) for item in shown.garbage] == [("table", "words")]
    assert remove(store, shown)
    assert store.current("toy", "words") is None

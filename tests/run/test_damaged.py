"""Builds on a store that is damaged, and what is said of stages without rows or bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from normloom.core.contract import Check
from normloom.core.errors import StoreError
from normloom.run.build import _builds_before
from normloom.run.checks.columns import _of_table
from normloom.run.failure_page import _rows
from normloom.run.taken import tables_taken
from normloom.steps.graph import stages_of
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

TOY = echo_stage(words_stage("a", "b"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    built(store, TOY, build=build_id(1))
    return store


def test_a_lock_that_cannot_be_read_is_missing_from_the_pages_no_more(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(_builds_before(store, "toy")) == 1
    (store.root / "toy" / "builds" / f"{build_id(1)}.yaml").write_text("{")
    assert _builds_before(Store(store.root), "toy") == []
    assert build_id(1) in caplog.text


def test_a_table_to_be_taken_that_is_damaged_is_named(store: Store) -> None:
    words = store.current("toy", "words")
    assert words
    (store.table_directory(words.ref) / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"table toy/words/.*: its manifest cannot be read .* build toy again"):
        tables_taken("toy", Selection(only=("echo",)), stages_of(TOY), Store(store.root))
    assert store.why_unreadable("toy", "words", "nokey") is None


def test_a_stage_that_failed_before_its_first_row_has_no_account() -> None:
    assert _rows(None, []) == "It failed before it read a row."


def test_a_count_of_rows_without_bounds_is_left_to_great_expectations() -> None:
    assert _of_table(Check(expectation="expect_table_row_count_to_be_between", arguments={}), {}) is None

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from normloom.core.table import Manifest
from normloom.planning.causes import causes, changes, own_changes, stored
from normloom.planning.changes import Change
from normloom.store.store import Store
from normloom.testing.chain import made, three


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def before_and_after(store: Store, **after: Any) -> tuple[Manifest, Manifest]:
    """Return the newest tables of the last of three stages, built before and after a change."""
    return made(store, *three())["last"], made(store, *three(**after))["last"]


def test_a_stage_of_which_nothing_changed_has_no_cause(store: Store) -> None:
    old, new = (stored(table, store) for table in before_and_after(store))
    assert changes(old, new) == []
    assert causes(old, new) == []


def test_other_rows_lead_to_the_stage_whose_own_fields_changed(store: Store) -> None:
    old, new = (stored(table, store) for table in before_and_after(store, words=("a", "b")))
    [change] = changes(old, new)
    assert (change.field, change.upstream) == ("inputs[0]", "echo")
    [cause] = causes(old, new)
    assert (cause.stage, cause.path) == ("words", ("last", "echo", "words"))
    assert cause.changes == (Change(field="arguments.words[2]", kind="removed", old="c"),)


def test_a_cause_near_by_comes_first(store: Store) -> None:
    old, new = (stored(table, store) for table in before_and_after(store, words=("a", "b"), drop="a"))
    assert [cause.stage for cause in causes(old, new)] == ["echo", "words"]


def test_a_table_that_is_gone_is_said_to_be(store: Store) -> None:
    old, new = before_and_after(store, words=("a", "b"))
    shutil.rmtree(store.directory("toy", "echo", old.inputs[0].key))
    [cause] = causes(stored(old, store), stored(new, store))
    assert (cause.stage, cause.path, cause.changes) == ("echo", ("last", "echo"), None)


def test_a_remake_on_demand_is_a_change_of_its_own(store: Store) -> None:
    words, *_ = three()
    first = made(store, words)["words"]
    again = made(store, words, again="all")["words"]
    assert own_changes(stored(first, store), stored(again, store)) == [Change(field="remake", old=0, new=1)]


def test_inputs_that_come_go_and_change_places(store: Store) -> None:
    words, echo, last = three()
    old = stored(made(store, words, echo, last)["last"], store)
    moved = {**old.inputs, "words": "c"}
    both = vars(old) | {"inputs": moved}
    wider = type(old)(**both)
    assert changes(old, wider) == [Change(field="inputs[1]", kind="added", new="c", upstream="words")]
    assert changes(wider, old) == [Change(field="inputs[1]", kind="removed", old="c", upstream="words")]
    turned = type(old)(**vars(old) | {"inputs": dict(reversed(moved.items()))})
    assert changes(wider, turned) == [Change(field="inputs", old=["echo", "words"], new=["words", "echo"])]

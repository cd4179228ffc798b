"""A flow that starts from a published table of another system."""

from __future__ import annotations

from pathlib import Path

import pytest

from normloom.core.errors import UsageError
from normloom.core.stage import Stage, published_stage
from normloom.history.builds import accounts
from normloom.history.removal.gc import collect
from normloom.lineage.trace import trace
from normloom.planning.plan import plan
from normloom.steps.graph import stages_of
from normloom.steps.selection import Selection
from normloom.store.stale import stale_stages
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage
from normloom.workers.resources import Resources


def words(store: Store, *given: str, number: int = 0) -> Stage:
    """Publish words as a table of the system `source` and return the stage that stands for it in the toy's flow."""
    lock = built(store, words_stage(*given), build=build_id(number), system="source")
    found = store.published("source", "words", lock.stages["words"].key)
    assert found
    return published_stage(found.ref, reader="toy")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_it_is_named_after_its_system_and_recorded_apart(store: Store) -> None:
    source = words(store, "a", "b")
    lock = built(store, echo_stage(source), build=build_id(1))
    assert source.name == "source_words"
    assert list(lock.stages) == ["echo"]
    assert lock.reads == {"source_words": source.table}
    echoed = store.current("toy", "echo")
    assert echoed
    assert echoed.inputs == [source.table]
    assert store.systems() == ["source", "toy"]
    assert not (store.root / "toy" / "words").exists()


def test_a_stage_that_shares_its_name_is_not_taken_for_it(store: Store) -> None:
    built(store, echo_stage(words(store, "a", "b")), words_stage("z"), build=build_id(1))
    [account] = accounts(store, "toy")
    assert account.released == {"echo": 2, "words": 1}


def test_the_same_content_made_anew_is_reused(store: Store) -> None:
    lock = built(store, echo_stage(words(store, "a", "b")), build=build_id(1))
    again = built(store, echo_stage(words(store, "a", "b", number=2)), build=build_id(3))
    assert again.stages["echo"].key == lock.stages["echo"].key


def test_a_row_is_traced_into_the_other_system(store: Store) -> None:
    built(store, echo_stage(words(store, "a", "b")), build=build_id(1))
    echo = store.current("toy", "echo")
    assert echo is not None
    row = store.scan(echo.ref).filter(word="b").collect()["row_id"][0]
    found = trace(store, row)
    assert [(one.stage, one.values["word"]) for one in found.rows] == [("echo", "b"), ("words", "b")]
    assert found.missing == ()


def test_a_newer_table_of_the_other_system_makes_stale(store: Store) -> None:
    built(store, echo_stage(words(store, "a", "b")), build=build_id(1))
    assert stale_stages(store, "toy") == {}
    words(store, "a", "b", "c", number=2)
    assert stale_stages(store, "toy") == {"echo": "source_words has been rebuilt"}


def test_gc_keeps_what_builds_of_others_stand_on(store: Store) -> None:
    source = words(store, "a", "b")
    built(store, echo_stage(source), build=build_id(1))
    words(store, "x", number=2)
    words(store, "y", number=3)
    going = {item.path.name for item in collect(store, "source", keep=1).garbage}
    assert source.table
    assert source.table.key not in going
    assert len(going) == 1


def test_the_plan_reads_it_as_it_stands(store: Store) -> None:
    stages = stages_of(echo_stage(words(store, "a", "b")))
    resources = Resources(actors=0)
    planned = plan(stages, system="toy", store=store, resources=resources)
    assert {one.stage.name: one.state for one in planned.stages} == {"source_words": "taken", "echo": "new"}
    assert planned["echo"].rows == 2
    built(store, *stages[-1:], build=build_id(1))
    changed = plan(stages_of(echo_stage(words(store, "c", number=2))), system="toy", store=store, resources=resources)
    [change] = changed["echo"].changes
    assert (change.field, change.upstream) == ("inputs[0]", "source_words")


@pytest.mark.parametrize("selection", [Selection(only=("source_words",)), Selection(force=("source_words",))])
def test_it_cannot_be_made(store: Store, selection: Selection) -> None:
    with pytest.raises(UsageError, match="unknown stage 'source_words'"):
        selection.chosen(stages_of(echo_stage(words(store, "a"))))

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from normloom.core.errors import UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.planning.plan import Plan, find_published, plan
from normloom.steps.selection import Selection
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.testing.chain import made, three
from normloom.testing.toy import SCRIPTED
from normloom.workers.resources import Resources

OTHER = SCRIPTED.model_copy(update={"model": "other"})
ONE = Resources(actors=0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def planned(store: Store, stages: list[Stage], *, resources: Resources = ONE, **selection: Any) -> Plan:
    return plan(stages, system="toy", store=store, resources=resources, selection=Selection(**selection))


def states(found: Plan) -> dict[str, str]:
    return {one.stage.name: one.state for one in found.stages}


def test_of_an_empty_store_nothing_is_known_and_nothing_is_written(store: Store) -> None:
    found = planned(store, three())
    assert states(found) == {"words": "new", "echo": "new", "last": "new"}
    assert (found["words"].key is None, found["echo"].key, found["last"].key) == (False, None, None)
    assert (found["echo"].rows, found["echo"].seconds) == (None, None)
    assert found.untimed == ["words", "echo", "last", "toy"]
    assert list(store.root.iterdir()) == []


def test_a_published_flow_is_reused(store: Store) -> None:
    tables = made(store, *three())
    found = planned(store, three())
    assert set(states(found).values()) == {"reused"}
    assert {one.stage.name: one.key for one in found.stages} == {name: table.key for name, table in tables.items()}
    assert find_published("toy", three(), store) == tables
    assert (found.to_do, found.seconds, found.loads, found.untimed) == ([], 0.0, (), [])


def test_a_change_is_named_and_what_stands_on_it_waits(store: Store) -> None:
    made(store, *three())
    found = planned(store, three(model=OTHER))
    assert states(found) == {"words": "reused", "echo": "changed", "last": "waiting"}
    assert [change.field for change in found["echo"].changes] == ["model.model"]
    assert found["last"].waits_for == ("echo",)
    assert (found["echo"].rows, found["echo"].parts, found["echo"].expected) == (3, 2, False)
    assert (found["last"].rows, found["last"].expected) == (3, True)
    assert [spec.model for spec in found.loads or ()] == ["other", "toy"]


def test_a_waiting_stage_that_changed_itself_is_changed(store: Store) -> None:
    made(store, *three())
    found = planned(store, three(model=OTHER, last_model=OTHER))
    assert states(found)["last"] == "changed"
    assert [spec.model for spec in found.loads or ()] == ["other"]


def test_other_rows_of_a_published_table_are_a_change(store: Store) -> None:
    made(store, *three())
    made(store, *three(words=("a", "b", "c", "d"))[:1])
    found = planned(store, three(words=("a", "b", "c", "d")))
    assert states(found) == {"words": "reused", "echo": "changed", "last": "waiting"}
    [change] = found["echo"].changes
    assert (change.field, change.upstream) == ("inputs[0]", "words")
    assert (found["echo"].rows, found["last"].rows) == (4, 4)


def test_parts_that_are_there_are_not_to_do(store: Store) -> None:
    table = made(store, *three())["echo"]
    directory = store.table_directory(table.ref)
    (directory / MANIFEST).unlink()
    (directory / "part-00001.json").unlink()
    echo = planned(store, three())["echo"]
    assert (echo.state, echo.parts_done, echo.parts, echo.rows_left, echo.rows) == ("resumed", 1, 2, 1, 3)


def test_no_model_is_loaded_for_no_rows(store: Store) -> None:
    made(store, *three(words=("a",), drop="a"))
    found = planned(store, three(words=("a",), drop="a", last_model=OTHER))
    assert states(found)["last"] == "changed"
    assert (found["last"].rows_left, found.models, found.loads) == (0, [], ())


def test_time_is_that_of_the_newest_table_with_the_same_model(store: Store) -> None:
    first = made(store, *three())["echo"]
    made(store, *three(model=OTHER))
    same = planned(store, three(copies=1, drop="b"))["echo"]
    assert same.seconds == pytest.approx(sum(part.seconds for part in first.parts))
    assert same.rough  # other arguments
    unseen = planned(store, three(model=ModelSpec(engine="scripted", model="unseen")))["echo"]
    assert unseen.seconds is not None
    assert unseen.rough
    assert not planned(store, three(words=("x",)))["echo"].rough


def test_stages_on_demand(store: Store) -> None:
    made(store, *three(aside="b"))
    forced = planned(store, three(aside="b"), force=("words", "echo"))
    assert states(forced) == {"words": "again", "echo": "waiting", "last": "waiting"}
    replayed = planned(store, three(aside="b"), replay=("echo", "last"))
    assert states(replayed) == {"words": "reused", "echo": "again", "last": "waiting"}
    assert (replayed["echo"].rows_left, replayed["echo"].parts_done) == (2, 1)


def test_a_remake_stands_for_its_key(store: Store) -> None:
    made(store, *three())
    words = made(store, *three()[:1], again="all")["words"]
    assert words.remake == 1
    assert find_published("toy", three(), store)["words"] == words
    assert planned(store, three())["words"].table == words


def test_what_is_not_chosen_is_taken_as_it_stands(store: Store) -> None:
    made(store, *three())
    chosen = planned(store, three(model=OTHER), only=("last",))
    assert states(chosen) == {"echo": "taken", "last": "reused"}
    with pytest.raises(UsageError, match="stage 'echo' has no table yet"):
        planned(Store(store.root / "other"), three(), only=("last",))


def test_without_knowing_the_cluster_the_loads_are_open(store: Store) -> None:
    found = planned(store, three(model=OTHER), resources=Resources(gpus=1))
    assert found.loads is None
    assert found.models == ["other", "toy"]

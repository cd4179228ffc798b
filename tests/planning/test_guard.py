"""What an upgrade would make again is not made before someone says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normloom.core.errors import UsageError
from normloom.core.stage import Stage
from normloom.planning.costs.guard import RemakeLimits, unasked
from normloom.planning.plan import Plan, plan
from normloom.steps.selection import Selection
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.testing.chain import made, three
from normloom.testing.toy import SCRIPTED
from normloom.workers.resources import Resources


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def planned(store: Store, stages: list[Stage], **selection: Any) -> Plan:
    return plan(stages, system="toy", store=store, resources=Resources(actors=0), selection=Selection(**selection))


def names(found: Plan) -> list[str]:
    return [one.stage.name for one, _ in unasked(found)]


def upgraded(stages: list[Stage]) -> list[Stage]:
    """Return the flow as if the first stage's library had been upgraded."""
    words, echo, last = stages
    new = replace(words, libraries=("duckdb",))
    echo = replace(echo, inputs=(new,))
    return [new, echo, replace(last, inputs=(echo,))]


def test_a_change_of_libraries_counts_with_all_that_reads_it(store: Store) -> None:
    made(store, *three())
    found = planned(store, upgraded(three()))
    assert names(found) == ["words", "echo", "last"]
    RemakeLimits(stages=3).hold(found)
    with pytest.raises(
        UsageError, match=r"would rebuild 3 stages .* words \(libraries\.duckdb added\), echo"
    ) as raised:
        RemakeLimits(stages=2).hold(found)
    assert "remake.max_stages (2)" in str(raised.value)
    assert "normloom plan toy" in str(raised.value)


def test_what_a_setting_or_a_force_asks_for_does_not_count(store: Store) -> None:
    made(store, *three())
    other = SCRIPTED.model_copy(update={"model": "other"})
    for found in (
        planned(store, three(model=other)),
        planned(store, three(), force=("words",)),
        planned(store, three()),
    ):
        assert names(found) == []
        RemakeLimits(stages=0, tokens=0).hold(found)


def test_a_new_stage_does_not_count(store: Store) -> None:
    RemakeLimits(stages=0).hold(planned(store, three()))


def test_tokens_are_those_of_the_tables_that_are_there(store: Store) -> None:
    path = store.table_directory(made(store, *three())["echo"].ref) / MANIFEST
    content = json.loads(path.read_text())
    content["parts"][0].update(tokens_in=1000, tokens_out=234)
    path.write_text(json.dumps(content))
    spent = 1234
    found = planned(store, upgraded(three()))
    RemakeLimits(tokens=spent).hold(found)
    with pytest.raises(UsageError, match=rf"which took {spent:,} tokens.*remake\.max_tokens \({spent - 1:,}\)"):
        RemakeLimits(tokens=spent - 1).hold(found)


def test_a_table_that_cannot_be_read_counts(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    table = made(store, *three())["words"]
    path = store.table_directory(table.ref) / MANIFEST
    path.write_text(path.read_text().replace('"rows_in"', '"rows_inn"'))
    found = planned(store, three())
    assert "words" in names(found)
    assert "rows_in: Field required): damaged, or another version of Normloom wrote it" in str(found.stages[0].damage)
    assert any("rows_in" in record.getMessage() for record in caplog.records)


def test_without_limits_nothing_is_held(store: Store) -> None:
    made(store, *three())
    RemakeLimits().hold(planned(store, upgraded(three())))

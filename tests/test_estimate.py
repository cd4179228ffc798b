from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from toy import SCRIPTED, echo_stage, words_stage

from normloom.estimate import load_seconds, models_at_once, stage_seconds
from normloom.models.protocol import ModelSpec
from normloom.resources import Resources
from normloom.table import Manifest, PartRecord


def table(
    *, seconds: Sequence[float] = (), rows: int = 0, model: str = "toy", loading: float = 0.0, created: str = "1"
) -> Manifest:
    counts = {"files": {}, "attempts": 0, "dropped_by": {}, "quarantined_by": {}, "tokens_in": 0, "tokens_out": 0}
    parts = [
        PartRecord(index=index, start=0, stop=0, seconds=value, metrics={}, **counts)
        for index, value in enumerate(seconds)
    ]
    return Manifest(
        system="toy",
        stage="echo",
        key="k",
        key_fields={"model": {"model": model}},
        content="c",
        inputs=[],
        sides=[],
        parts=parts,
        rows_in=rows,
        seconds=sum(seconds),
        load_seconds=loading,
        checks=[],
        build="b",
        created=created,
    )


@pytest.mark.parametrize(
    ("rows", "actors", "seconds"),
    [
        (10, 1, 20.0),  # ten rows took 20 seconds
        (20, 1, 40.0),
        (20, 2, 20.0),  # shared
        (2, 4, 4.0),  # one part keeps one actor busy
        (0, 1, 0.0),
    ],
)
def test_time_follows_rows_and_actors(rows: int, actors: int, seconds: float) -> None:
    stage = echo_stage(words_stage("a"), part_rows=2)
    assert stage_seconds(stage, rows, table(seconds=(12.0, 8.0), rows=10), actors=actors) == seconds


def test_a_stage_that_reads_no_table_takes_what_it_took() -> None:
    assert stage_seconds(words_stage("a"), 0, table(seconds=(3.0,)), actors=2) == 3.0


def test_an_earlier_table_without_rows_tells_of_none() -> None:
    assert stage_seconds(echo_stage(words_stage("a")), 5, table(seconds=(0.1,)), actors=1) == 0.0


def test_loading_takes_what_it_last_took() -> None:
    tables = [
        table(loading=8.0, created="2"),
        table(loading=6.0, created="1"),
        table(loading=50.0, model="other", created="4"),
        table(created="3"),  # found the model loaded
    ]
    assert load_seconds(SCRIPTED, tables, actors=2) == 4.0
    assert load_seconds(SCRIPTED, tables, actors=0) == 8.0
    assert load_seconds(ModelSpec(model="unseen"), tables, actors=1) is None


def test_how_many_models_fit() -> None:
    cpus = os.cpu_count() or 1
    assert models_at_once(Resources(actors=0)) == 1
    assert models_at_once(Resources(actors=1, threads=1)) == cpus
    assert models_at_once(Resources(actors=cpus + 1, threads=2)) == 1
    assert models_at_once(Resources(actors=1, gpus=1)) is None
    assert models_at_once(Resources(address="auto")) is None

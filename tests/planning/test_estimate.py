from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from normloom.core.fan_out import each
from normloom.core.models.model_roles import RolesSpec
from normloom.core.models.needs import Needs, ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.table import Manifest, PartRecord, Work
from normloom.planning.costs.estimate import load_seconds, model_loads, stage_seconds
from normloom.testing.toy import SCRIPTED, echo_stage, words_stage
from normloom.workers.resources import Resources


def table(
    *,
    seconds: Sequence[float] = (),
    rows: int = 0,
    model: str = "toy",
    loading: float = 0.0,
    created: str = "1",
) -> Manifest:
    counts = {"files": {}, "attempts": 0, "dropped_by": {}, "quarantined_by": {}, "tokens_in": 0, "tokens_out": 0}
    parts = [
        PartRecord(index=index, start=0, stop=0, seconds=value, metrics={}, **counts)
        for index, value in enumerate(seconds)
    ]
    work = Work.of(parts, seconds=1.0, first=1.0, loads=2, host_bytes=0, device_bytes=0)
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
        work=work if loading else None,
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
    assert stage_seconds(stage, rows, table(seconds=(12.0, 8.0), rows=10), Resources(actors=actors)) == seconds


def test_parts_made_side_by_side_share_the_time_of_an_actor() -> None:
    model = SCRIPTED.model_copy(update={"parts": 2})
    stage = echo_stage(words_stage("a"), model=model, part_rows=2)
    assert stage_seconds(stage, 20, table(seconds=(12.0, 8.0), rows=10), Resources(actors=2)) == 10.0


def test_rows_that_a_part_makes_decide_how_many_share_an_actor() -> None:
    stage = echo_stage(words_stage("a"), model=SCRIPTED.model_copy(update={"engine": "vllm"}), part_rows=64)
    took = table(seconds=[1.0] * 100, rows=6_400)
    assert stage_seconds(stage, 6_400, took, Resources()) == 100 / 32
    assert stage_seconds(replace(stage, fan_out=each(3)), 6_400, took, Resources()) == 100 / 11


def test_a_stage_that_reads_no_table_takes_what_it_took() -> None:
    assert stage_seconds(words_stage("a"), 0, table(seconds=(3.0,)), Resources(actors=2)) == 3.0


def test_an_earlier_table_without_rows_tells_of_none() -> None:
    assert stage_seconds(echo_stage(words_stage("a")), 5, table(seconds=(0.1,)), Resources()) == 0.0


def test_loading_takes_what_it_last_took() -> None:
    tables = [
        table(loading=8.0, created="2"),
        table(loading=6.0, created="1"),
        table(loading=50.0, model="other", created="4"),
        table(created="3"),  # found the model loaded
    ]
    assert load_seconds(SCRIPTED, tables) == 4.0
    assert load_seconds(ModelSpec(model="unseen"), tables) is None


ONE, TWO, BIG = (SCRIPTED.model_copy(update={"model": name}) for name in ("one", "two", "big"))


def loads(resources: Resources, *uses: ModelSpec) -> list[str] | None:
    found = model_loads(uses, resources)
    return None if found is None else [spec.model for spec in found]


def test_one_process_holds_one_model() -> None:
    assert loads(Resources(actors=0), ONE, TWO, TWO, ONE) == ["one", "two", "one"]


def test_models_stay_as_long_as_there_are_processors() -> None:
    cpus = os.cpu_count() or 1
    assert loads(Resources(actors=1, threads=1, cpus=cpus / 2), ONE, TWO, ONE) == ["one", "two"]
    assert loads(Resources(actors=cpus + 1, threads=2), ONE, TWO, ONE) == ["one", "two", "one"]


def test_a_large_model_takes_the_place_of_two_small_ones() -> None:
    cpus = os.cpu_count() or 1
    large = BIG.model_copy(update={"actors": cpus})
    assert loads(Resources(cpus=cpus / 2), ONE, TWO, large, TWO) == ["one", "two", "big", "two"]


def test_processes_of_a_stage_push_models_out_and_are_no_loads() -> None:
    cpus = os.cpu_count() or 1
    one = Resources(threads=1, cpus=cpus / 2)
    small, large = (ProcessSpec.of("train", Needs(threads=1, processes=number)) for number in (1, cpus))
    whole = ONE.model_copy(update={"actors": 2})  # takes all processors
    assert loads(one, ONE, large, ONE, TWO) == ["one", "one", "two"]
    assert loads(one, whole, small, whole) == ["one", "one"]
    assert loads(Resources(threads=1, cpus=cpus / 4), TWO, small, TWO) == ["two"]
    assert loads(Resources(actors=0), ONE, large, ONE) == ["one", "one"]  # one process: it lets go of the model


def test_the_models_of_roles_take_the_room_of_all_of_them() -> None:
    cpus = os.cpu_count() or 1
    half = Resources(cpus=cpus / 2)
    both = RolesSpec.of({"policy": ONE, "judge": TWO.model_copy(update={"actors": 2})})
    assert loads(half, ONE, both, ONE) == ["one", "policy one + judge two", "one"]


def test_only_a_cluster_knows_its_room() -> None:
    assert loads(Resources(actors=1, gpus=1), ONE) is None
    assert loads(Resources(address="auto"), ONE) is None
    assert loads(Resources(memory=2.0), ONE) is None
    assert loads(Resources(), ONE.model_copy(update={"gpus": 2.0})) is None

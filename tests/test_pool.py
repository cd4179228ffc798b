from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy import SCRIPTED, echo_stage, runner, words_stage

from normloom.crew import ActorCrew
from normloom.errors import ModelError
from normloom.pool import Pool
from normloom.resources import Resources
from normloom.stage import Stage
from normloom.store import Store
from normloom.table import Manifest

TWO = Resources(actors=2, threads=1)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(TWO)
    yield pool
    pool.close()


def build(pool: Pool, store: Store, words: Stage, stage: Stage) -> Manifest:
    loom = replace(runner(store), pool=pool)
    first, _ = loom.run(words, [], [])
    return loom.run(stage, [first.ref], [])[0]


def test_actors_make_the_same_table_as_one_process(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefghij")
    stage = echo_stage(words, copies=2)
    alone = build(Pool(Resources(actors=0)), Store(tmp_path / "alone"), words, stage)
    spread = build(pool, Store(tmp_path / "spread"), words, stage)
    assert spread.content == alone.content


def test_a_row_that_ends_its_process_is_put_aside_alone(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefg", "deadly", *"hijklmno")
    model = SCRIPTED.model_copy(update={"options": {"poison": "deadly"}})
    store = Store(tmp_path)
    manifest = build(pool, store, words, echo_stage(words, model=model, part_rows=4))
    assert manifest.count("rows") == 15
    aside = store.scan(manifest.ref, "quarantined").collect().row(0, named=True)
    assert (aside["rule"], aside["reason"]) == ("poison", "the process that held the model died")
    assert "deadly" in aside["payload"]


def test_a_model_stays_until_another_needs_its_place(pool: Pool) -> None:
    one, two = (SCRIPTED.model_copy(update={"model": name}) for name in ("one", "two"))
    with pool.lease(one) as crew:
        assert isinstance(crew, ActorCrew)
    with pool.lease(one) as again:
        assert again is crew
    with pool.lease(two):
        pass
    with pool.lease(one) as later:
        assert later is not crew
    assert (pool.loads["one"], pool.loads["two"]) == (2, 1)


def test_a_model_that_cannot_be_loaded_says_which_and_why(pool: Pool) -> None:
    spec = SCRIPTED.model_copy(update={"model": "odd", "options": {"wordz": 3}})
    with pytest.raises(ModelError, match=r"model 'odd'.*wordz"), pool.lease(spec):
        pass


def test_more_actors_than_the_machine_holds() -> None:
    pool = Pool(Resources(actors=1, threads=1, gpus=1))
    with pytest.raises(ModelError, match="1 actors with 1 threads and 1 GPUs each do not fit"), pool.lease(SCRIPTED):
        pass
    pool.close()

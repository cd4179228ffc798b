from __future__ import annotations

import gc
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import psutil
import pytest
import ray
from batching_engine import LAST, LONG, NAME, installed, most_at_once

from normloom.core.errors import ClusterError, ConfigError, ModelError, StageError
from normloom.core.models.needs import Needs, ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.progress import LogProgress
from normloom.core.run import Run
from normloom.core.stage import Output, Stage
from normloom.core.table import Manifest, PartRecord
from normloom.steps.step import step
from normloom.store.layout import LOCK
from normloom.store.store import Store
from normloom.testing.toy import SCRIPTED, echo_stage, runner, words_stage
from normloom.workers.actors import actor_crew
from normloom.workers.actors.actor_crew import ActorCrew
from normloom.workers.actors.node_engines import _agreed, _connected, _identity
from normloom.workers.parts.job import PartJob
from normloom.workers.pool import Pool, Waits
from normloom.workers.resources import Resources

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


def refuse(*_: object, **__: object) -> Output:
    raise StageError("what it needs cannot be had")


def test_actors_make_the_same_table_as_one_process(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefghij")
    stage = echo_stage(words, copies=2)
    alone = build(Pool(Resources(actors=0)), Store(tmp_path / "alone"), words, stage)
    spread = build(pool, Store(tmp_path / "spread"), words, stage)
    assert spread.content == alone.content


def test_a_part_that_another_writer_took_over_leaves_no_unhandled_error(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / LOCK).write_text("build other (process 1 on elsewhere, writer other)")
    stage = echo_stage(words_stage("a"))
    lost = PartJob(
        system="toy",
        stage=stage.name,
        function=stage.function,
        arguments=stage.arguments,
        contract=stage.contract,
        directory=tmp_path,
        writer="this",
        index=0,
        start=0,
        stop=1,
        inputs=(),
        sides=(),
    )
    log, heard = logging.getLogger("ray._private.worker"), Heard()
    log.addHandler(heard)
    try:
        with pool.lease(SCRIPTED) as crew:
            assert isinstance(crew, ActorCrew)
            [actor, *_] = crew._ready
            unread = actor.run.remote(lost, probe=False, run_log=None)
            ray.get(actor.tell.remote())
            del unread  # nobody asks for what became of a copy that lost its race
            gc.collect()
            raised = actor.run.remote(None, probe=False, run_log=None)  # Ray does tell of what an actor raises
            ray.get(actor.tell.remote())
            del raised
            gc.collect()
            heard.wait(30)
    finally:
        log.removeHandler(heard)
    [told] = heard.messages
    assert told.startswith("Unhandled error")
    assert "is being written by" not in told


def test_a_model_stays_until_another_needs_its_place(pool: Pool) -> None:
    one, two = SCRIPTED, SCRIPTED.model_copy(update={"model": "two"})
    with pool.lease(one) as crew:
        assert isinstance(crew, ActorCrew)
    before = pool.loads[one.model]
    with pool.lease(one) as again:
        assert again is crew
    with pool.lease(two):
        pass
    with pool.lease(one) as later:
        assert later is not crew
    assert (pool.loads[one.model], pool.loads[two.model]) == (before + 1, 1)


def test_a_row_that_ends_its_process_is_put_aside_alone(
    tmp_path: Path, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    words = words_stage(*"abcdefg", "deadly", *"hijklmno")
    model = SCRIPTED.model_copy(update={"options": {"poison": "deadly"}})
    store = Store(tmp_path)
    manifest = build(pool, store, words, echo_stage(words, model=model, part_rows=4))
    assert manifest.count("rows") == 15
    aside = store.scan(manifest.ref, "quarantined").collect().row(0, named=True)
    assert (aside["rule"], aside["reason"]) == ("crash", "the process that held the model died")
    assert "deadly" in aside["payload"]
    died = [record.getMessage() for record in caplog.records if record.name == "normloom.crew"]
    of_part = re.compile(r"a process with model toy died while it made part 1; starting another: pid \d+, ip ")
    [told, *_] = filter(of_part.match, died)  # one that was sent part 1 as its next may die before it tells of part 0
    assert "orker" in told.partition("ip ")[2]  # Ray's reason


def test_actors_tell_how_far_a_part_is_before_it_is_done(tmp_path: Path, pool: Pool) -> None:
    told: list[int] = []

    class Heard(LogProgress):
        def within(self, stage: str, part: int, rows: int) -> None:
            assert (stage, part) == ("echo", 0)
            told.append(rows)

    words = words_stage(*"abcdefghij")
    model = SCRIPTED.model_copy(update={"model": "slow part", "options": {"latency_s": 5.0}})
    store = Store(tmp_path)
    loom = replace(runner(store), pool=pool, progress=Heard())
    first, _ = loom.run(words, [], [])
    loom.run(echo_stage(words, model=model, part_rows=10), [first.ref], [])
    assert told
    assert told == sorted(told)
    assert 0 < told[0] < 10


def test_parts_side_by_side_make_the_same_table(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefghijklmnop")
    alone = build(Pool(Resources(actors=0)), Store(tmp_path / "alone"), words, echo_stage(words))
    model = SCRIPTED.model_copy(update={"parts": 3})
    spread = build(pool, Store(tmp_path / "spread"), words, echo_stage(words, model=model))
    assert (spread.key, spread.content) == (alone.key, alone.content)


def test_an_actor_is_given_parts_as_its_model_writes_and_no_more(tmp_path: Path, pool: Pool) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    words = words_stage(LONG, f"{LONG} too", *"abcdefghijklmnop", LAST)
    model = ModelSpec(engine=NAME, model=str(notes))
    with installed(tmp_path / "engine"):
        manifest = build(pool, Store(tmp_path), words, echo_stage(words, model=model, part_rows=1))
    assert manifest.count("rows") == 19
    assert most_at_once(notes) == 4  # two batches of two; all 19 are more, and without them the long one waits for ever


def test_the_first_parts_are_shared_among_all_actors_that_have_loaded(tmp_path: Path, pool: Pool) -> None:
    words = words_stage("a", "b")
    model = SCRIPTED.model_copy(update={"model": "shared", "options": {"latency_s": 1.0}})
    with pool.lease(model) as crew:  # as soon as one of two has loaded
        assert isinstance(crew, ActorCrew)
        loading = list(crew._loading)
        assert ray.wait(loading, num_returns=len(loading), timeout=60)[1] == []
    manifest = build(pool, Store(tmp_path), words, echo_stage(words, model=model, part_rows=1))
    names = [file.name for part in manifest.parts for file in part.stored]
    assert not any(name.endswith("-1.parquet") for name in names)  # no copy of a part that waited behind another


def test_a_row_that_ends_its_process_among_others_is_put_aside_alone(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefg", "deadly", *"hijklmno")
    model = SCRIPTED.model_copy(update={"options": {"poison": "deadly", "latency_s": 0.2}, "parts": 3})
    store = Store(tmp_path)
    manifest = build(pool, store, words, echo_stage(words, model=model, part_rows=2))
    assert manifest.count("rows") == 15
    assert "deadly" in store.scan(manifest.ref, "quarantined").collect().row(0, named=True)["payload"]


def test_a_part_whose_process_stands_still_is_made_by_another(tmp_path: Path, pool: Pool) -> None:
    words = words_stage(*"abcdefghijklmnop")
    model = SCRIPTED.model_copy(update={"model": "slow", "options": {"words": 4, "latency_s": 0.5}})
    stage = echo_stage(words, model=model)
    halted: list[int] = []

    class Halt(LogProgress):
        def advance(self, stage: str, part: PartRecord) -> None:
            if stage == "echo" and part.index >= 3 and not halted:
                halted.append(actor_processes()[0])
                os.kill(halted[0], signal.SIGSTOP)

    store = Store(tmp_path)
    loom = replace(runner(store), pool=pool, progress=Halt())
    first, _ = loom.run(words, [], [])
    try:
        manifest, _ = loom.run(stage, [first.ref], [])
    finally:
        os.kill(halted[0], signal.SIGCONT)
    alone = build(Pool(Resources(actors=0)), Store(tmp_path / "alone"), words, stage)
    assert manifest.content == alone.content
    names = [file.name for part in manifest.parts for file in part.stored]
    assert any(name.endswith("-1.parquet") for name in names)  # a copy won
    there = {path.name for path in store.table_directory(manifest.ref).glob("*.parquet")}
    assert there >= set(names)  # the halted process may have been about to write more, which no manifest names


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._first = threading.Event()
        self.wait = self._first.wait

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._first.set()


def actor_processes() -> list[int]:
    """Return the processes of this test's actors."""
    family = psutil.Process().children(recursive=True)
    return [process.pid for process in family if process.name().startswith("ray::ModelActor")]


def test_only_waits_that_last_are_told_and_then_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    waits = Waits(told.append)
    waits("waits for toy")
    waits.over()
    assert told == []
    monkeypatch.setattr("normloom.workers.pool.SHORT_WAIT_SECONDS", 0.0)
    for _ in range(3):
        waits("waits for toy")
    waits("waits for 1 CPU")
    waits.over()
    waits.over()
    assert told == ["waits for toy", "waits for 1 CPU", "waited for 0 s"]


def test_a_stage_that_waits_for_a_model_in_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normloom.workers.pool.SHORT_WAIT_SECONDS", 0.0)
    pool, told, heard = Pool(Resources(actors=0)), list[str](), threading.Event()

    def note(text: str) -> None:
        told.append(text)
        heard.set()

    def second(spec: ModelSpec) -> None:
        with pool.lease(spec, note=note):
            pass

    for spec, expected in (
        (SCRIPTED, "waits for toy, which another stage uses"),
        (SCRIPTED.model_copy(update={"model": "other"}), "waits for a place, held by toy"),
    ):
        thread = threading.Thread(target=second, args=(spec,))
        with pool.lease(SCRIPTED):
            thread.start()
            assert heard.wait(30)
        thread.join(30)
        assert told == [expected, "waited for 0 s"]
        told.clear()
        heard.clear()


def test_a_model_that_cannot_be_loaded_says_which_and_why(pool: Pool) -> None:
    spec = SCRIPTED.model_copy(update={"model": "odd", "options": {"wordz": 3}})
    with pytest.raises(ModelError, match=r"model 'odd'.*wordz"), pool.lease(spec):
        pass


def test_more_actors_than_the_machine_holds() -> None:
    pool = Pool(Resources(actors=1, threads=1, gpus=1))
    with (
        pytest.raises(ModelError, match="1 actors for 'toy' with 1 threads, 1 GPUs each do not fit"),
        pool.lease(SCRIPTED),
    ):
        pass
    pool.close()


@step(makes={"step": pl.Int64, "process": pl.Int64}, files="count", needs=Needs(threads=1))
def dies_once(rows: pl.DataFrame, run: Run) -> Output:  # noqa: ARG001
    """Count to four, and end the process by SIGKILL at two, the first time."""
    kept = run.scratch / "count"
    begun = int(kept.read_text()) if kept.exists() else 0
    for number in range(begun + 1, 5):
        kept.write_text(str(number))
        run.progress(number, 4, loss=1 / number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    (run.files / "count").write_text("4")
    made = pl.DataFrame({"step": [begun], "process": [os.getpid()]})
    return Output(rows=made.with_columns(parents=pl.lit([], dtype=pl.List(pl.String)), content=pl.lit("x")), attempts=1)


def runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stage_that_needs_a_process_has_one_of_its_own_and_resumes_in_its_scratch(tmp_path: Path, pool: Pool) -> None:
    words = words_stage("a", "b")
    store = Store(tmp_path)
    manifest = build(pool, store, words, dies_once(words))
    row = store.scan(manifest.ref).collect().row(0, named=True)
    assert row["step"] == 2  # the second process began where the first was killed
    assert row["process"] != os.getpid()
    assert list(manifest.attached) == ["count"]
    until = time.monotonic() + 30  # Ray kills it, and does not wait until it is gone
    while runs(row["process"]):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_who_waits_is_told_of_a_stage_that_has_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normloom.workers.pool.SHORT_WAIT_SECONDS", 0.0)
    lone, said, heard = Pool(Resources(actors=0)), list[str](), threading.Event()

    def note(text: str) -> None:
        said.append(text)
        heard.set()

    training = ProcessSpec.of("train", Needs(threads=1))
    with lone.lease(training):
        waiting = threading.Thread(target=lambda: lone.lease(SCRIPTED, note=note).__enter__(), daemon=True)
        waiting.start()
        assert heard.wait(30)
    waiting.join(30)
    assert not waiting.is_alive()
    assert said[0] == "waits for a place, held by train"
    lone.close()


def test_a_crew_tells_of_processes_that_died_asleep_over_a_copy_or_while_they_load(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_stage("a")
    with pytest.raises(StageError, match="cannot be had"):
        build(pool, Store(tmp_path), words, replace(echo_stage(words), function=refuse))
    monkeypatch.setattr(actor_crew, "DEATHS_WHILE_LOADING", 0)
    monkeypatch.setattr(actor_crew, "NODE_LOSS_SECONDS", 0.1)
    with pool.lease(SCRIPTED.model_copy(update={"model": "mortal"})) as crew:
        assert isinstance(crew, ActorCrew)
        actor = crew._ready[0]
        ray.kill(actor)
        assert not crew.sleep()
        crew._bury_if_dead(actor, actor.progress.remote())
        crew._bury_if_dead(actor, actor.progress.remote())  # its death is known
        [(reference, replacement)] = crew._loading.items()
        ray.kill(replacement)
        with pytest.raises(ModelError, match=r"could not load model .*: its process died each time"):
            crew._settle(reference)
        monkeypatch.setattr(crew, "_resources", Resources(actors=1, threads=10_000))
        with pytest.raises(ClusterError, match="is left and Ray has no room for another"):
            crew._require_place()
    with _connected(Resources(address="nowhere:1")):
        assert ray.is_initialized()


def test_nodes_that_lack_a_model_or_differ_are_named() -> None:
    missing = ModelSpec(engine="transformers", model="/no/model")
    told = _identity(missing)
    assert isinstance(told, str)
    with pytest.raises(ConfigError, match=r"Ray node one: .*/no/model"):
        _agreed(missing, [("one", {missing.model_dump_json(): told})], Resources())
    if find_spec("vllm") is None:
        assert "needs vllm" in str(_identity(ModelSpec(engine="vllm", model="m")))


def test_a_model_that_is_coming_is_not_to_be_taken() -> None:
    pool = Pool(Resources(actors=0))
    pool._coming["m"] = pool.resources
    assert not pool._may_take("m", SCRIPTED)

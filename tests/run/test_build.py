from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Set
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import yaml
from prefect_home import Prefect

from normloom.core.contract import Check
from normloom.core.errors import BuildCancelledError, QuarantineBudgetError, UsageError
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Output, Stage, published_stage
from normloom.history.unfinished import unfinished
from normloom.lineage.openlineage import record_of
from normloom.run.build import BuildRequest, BuildResult, build, reuse
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.testing.builds import built
from normloom.testing.toy import ECHOES, SCRIPTED, Echo, echo, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@pytest.fixture(scope="module", autouse=True)
def prefect(shared_prefect: Prefect) -> Iterator[None]:
    with shared_prefect.used():
        yield


def echoing(name: str, *inputs: Stage, model: ModelSpec = SCRIPTED, sides: tuple[Stage, ...] = ()) -> Stage:
    return Stage(
        name=name,
        function=echo_beside if sides else echo,
        arguments=Echo(),
        contract=ECHOES,
        inputs=inputs,
        sides=sides,
        model=model,
        part_rows=2,
    )


def echo_beside(rows: pl.DataFrame, arguments: Echo, side: pl.DataFrame, model: Any) -> Output:  # noqa: ARG001
    return echo(rows, arguments, model)


def diamond(*, model: ModelSpec = SCRIPTED, words: str = "abc") -> Stage:
    """Six stages: a diamond, one table read twice, and one read as a side table."""
    source = words_stage(*words)
    left, right = echoing("left", source), echoing("right", source, model=model)
    joined = echoing("joined", left, right)
    beside = echoing("beside", joined, sides=(left,))
    return echoing("last", beside, joined)


def make(end: Stage, store: Store, **selection: Any) -> BuildResult:
    request = BuildRequest(system="toy", profile="test", selection=Selection(**selection), quarantine_budget=0.1)
    return build(end, request=request, store=store, pool=Pool(Resources(actors=0)))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """The diamond, built once."""
    return make(diamond(), Store(tmp_path_factory.mktemp("fresh")))


@pytest.fixture
def store(fresh: BuildResult, tmp_path: Path) -> Store:
    """A store with the tables of the diamond."""
    return Store(shutil.copytree(fresh.lock.parents[2], tmp_path / "store", symlinks=True))


def run_graph(stages: Set[str]) -> tuple[set[tuple[str, str]], dict[str, str | None], list[str]]:
    """Return the edges of the newest run in Prefect's graph, the state name of each stage and the run's tags."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        mine = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
        for _ in range(60):  # the server records what a run tells it some time later
            nodes = dict(client.request("GET", "/flow_runs/{id}/graph-v2", path_params={"id": run.id}).json()["nodes"])
            tasks = client.read_task_runs(task_run_filter=mine)
            states = {task.name: task.state_name for task in tasks if task.state and task.state.is_final()}
            if set(states) == {node["label"] for node in nodes.values()} == stages:
                break
            time.sleep(0.5)
    edges = {(nodes[parent["id"]]["label"], node["label"]) for node in nodes.values() for parent in node["parents"]}
    return edges, states, run.tags


MANY = 12  # more than are at work at once
STAGES = {"words", "left", "right", "joined", "beside", "last"}
EDGES = {
    ("words", "left"),
    ("words", "right"),
    ("left", "joined"),
    ("right", "joined"),
    ("joined", "beside"),
    ("left", "beside"),
    ("beside", "last"),
    ("joined", "last"),
}


def test_the_run_graph_is_the_stage_graph_fresh_and_reused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fresh = make(diamond(), store)
    edges, states, tags = run_graph(STAGES)
    assert edges == EDGES
    assert set(states.values()) == {"Completed"}
    assert {"toy", "profile:test"} <= set(tags)
    assert fresh.reused == frozenset()

    changed = make(diamond(model=SCRIPTED.model_copy(update={"model": "other"})), store)
    edges, states, _ = run_graph(STAGES)
    assert edges == EDGES
    # Only `right` has another model. `joined` reads its words and not its echoes, so it comes out the same,
    # and what reads it is not rebuilt.
    assert changed.reused == {"words", "left", "beside", "last"}
    assert changed["joined"].content == fresh["joined"].content
    assert {name for name, state in states.items() if state == "Reused"} == changed.reused


def test_all_stages_are_drawn_under_their_names_while_the_first_is_at_work(tmp_path: Path) -> None:
    drawn: dict[str, str] = {}
    waiting = {f"echo_{number}": "PENDING" for number in range(MANY)}
    expected = {"words": "COMPLETED", "look": "RUNNING", **waiting}

    def look(rows: pl.DataFrame, arguments: Echo) -> Output:  # noqa: ARG001
        from prefect.client.orchestration import get_client
        from prefect.context import TaskRunContext

        run = TaskRunContext.get()
        assert run
        with get_client(sync_client=True) as client:
            for _ in range(60):
                path = {"id": run.task_run.flow_run_id}
                nodes = dict(client.request("GET", "/flow_runs/{id}/graph-v2", path_params=path).json()["nodes"])
                drawn.update({node["label"]: node["state_type"] for node in nodes.values()})
                if drawn == expected:
                    break
                time.sleep(0.2)
        return Output(rows=rows.with_columns(echo="word"), attempts=rows.height)

    first = Stage(name="look", function=look, arguments=Echo(), contract=ECHOES, inputs=(words_stage(*"ab"),))
    ends = [echoing(f"echo_{number}", first) for number in range(MANY)]
    request = BuildRequest(system="toy", profile="test")
    build(*ends, request=request, store=Store(tmp_path), pool=Pool(Resources(actors=0)))
    assert drawn == expected


def test_a_finished_build_is_recognised_without_starting_anything(
    fresh: BuildResult, store: Store, tmp_path: Path
) -> None:
    assert reuse(diamond(), request=BuildRequest(system="toy"), store=Store(tmp_path)) is None
    again = reuse(diamond(), request=BuildRequest(system="toy"), store=store)
    assert again is not None
    assert again.manifests == fresh.manifests
    assert again.reused == {"words", "left", "right", "joined", "beside", "last"}
    assert again.lock.name != fresh.lock.name


def test_the_lock_names_each_stage_s_key_content_rows_and_model(fresh: BuildResult) -> None:
    lock = yaml.safe_load(fresh.lock.read_text())
    assert (lock["system"], lock["build"]) == ("toy", fresh.build)
    assert list(lock["stages"]) == ["words", "left", "right", "joined", "beside", "last"]
    last = lock["stages"]["last"]
    assert (last["key"], last["content"], last["rows"]) == (fresh["last"].key, fresh["last"].content, 12 + 12 - 12)
    assert last["model"]["model"] == "toy"


def test_a_build_that_fails_raises_its_cause_and_goes_on_from_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failing = SCRIPTED.model_copy(update={"options": {"raise_on": ""}})
    with pytest.raises(QuarantineBudgetError, match="stage 'right' put 2 of 3 rows into quarantine"):
        make(diamond(model=failing), store)
    assert {manifest.stage for manifest in store.newest("toy")} == {"words", "left"}
    mended = make(diamond(), store)
    assert {"words", "left"} <= mended.reused


def failing(*inputs: Stage) -> Stage:
    """A stage that warns, logs in a thread of its own, and puts too many rows into quarantine."""
    return replace(echoing("right", *inputs), function=warn_and_echo, arguments=Echo(aside="c"))


def warn_and_echo(rows: pl.DataFrame, arguments: Echo, model: Any) -> Output:
    warnings.warn("mind the step", stacklevel=1)
    thread = threading.Thread(target=logging.getLogger("normloom.elsewhere").info, args=("from a thread",))
    thread.start()
    thread.join()
    return echo(rows, arguments, model)


def newest_run() -> tuple[Any, list[Any], list[Any]]:
    """Return the newest flow run with its log and its artifacts."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, LogFilter
    from prefect.client.schemas.sorting import FlowRunSort, LogSort
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=60)
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        lines = LogFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
        pages = ArtifactFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
        return run, client.read_logs(lines, sort=LogSort.TIMESTAMP_ASC), client.read_artifacts(artifact_filter=pages)


@pytest.mark.usefixtures("fresh")  # in the first build Prefect sets up its loggers, levels included
def test_a_build_that_fails_tells_the_cause_first_in_state_log_and_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prefect.task_runs")
    processes = set(psutil.Process().children())
    store, source = Store(tmp_path), words_stage(*"abccab")
    checked = Check(expectation="expect_table_row_count_to_equal", arguments={"value": 1}, on_fail="warn")
    left = replace(echoing("left", source), contract=replace(ECHOES, checks=(checked,)))
    right = failing(source)
    joined = echoing("joined", left, right)
    last = echoing("last", joined)
    with warnings.catch_warnings(action="always"), pytest.raises(QuarantineBudgetError) as raised:
        make(last, store)
    run, lines, pages = newest_run()
    why = "stage 'right' put 2 of 6 rows into quarantine (asked 2), more than its budget of 10%: 'because' (row "
    assert str(raised.value).startswith(why)
    assert run.state.message.startswith(why)
    command = f"normloom build toy --profile test --store {store.root}"
    assert raised.value.__notes__ == [f"to resume: {command}"]
    errors = [line.message for line in lines if line.level >= logging.ERROR]
    first, *_, final = errors
    assert why in first  # of the task, with its traceback
    assert final.startswith(f"build {run.name} failed: {why}")
    assert final.endswith(f"; not made: joined, last; to resume: {command}")
    assert not any("NotReady" in line.message for line in lines)
    assert sum("not made: a stage that it reads was not made" in line.message for line in lines) == 2
    told = {(line.name, line.message): line for line in lines}
    assert told["normloom.elsewhere", "from a thread"].task_run_id is None
    assert set(psutil.Process().children()) <= processes  # Prefect has started no server for the thread
    [warned] = {line.message for line in lines if line.name == "py.warnings"}
    assert "UserWarning: mind the step" in warned
    [check] = [line for line in lines if line.name == "normloom.run.runner"]
    assert check.message.startswith("left: check ")
    assert " warns: " in check.message
    assert check.task_run_id is not None
    assert len([line for line in lines if "left: published" in line.message]) == 1  # shown progress is not told twice
    page = next(page for page in pages if page.key == "toy")
    assert raised.value.page == f"/v2/artifacts/artifact/{page.id}"
    assert page.description.startswith("FAILED at right: stage 'right' put")
    assert command in page.data
    assert "| done | 6 | in 3 finished parts |" in page.data
    assert '| 2 | asked | because | \\{"word": "c"\\} |' in page.data
    assert "3 made by this build" not in page.data
    assert "2 made by this build, 0 reused, 3 not made." in page.data
    events = [json.loads(line) for line in record_of(store, "toy", run.name).read_text().splitlines()]
    ids = {event["run"]["facets"]["normloom_prefect"]["flowRunId"] for event in events}
    assert ids == {str(run.id)}
    tasks = [event["run"]["facets"]["normloom_prefect"].get("taskRunId") for event in events]
    assert (tasks[0], str(check.task_run_id) in tasks) == (None, True)
    [record] = unfinished(store, "toy")
    assert (record.state, record.stage, record.flow_run) == ("failed", "right", str(run.id))


def test_only_builds_one_stage_on_the_tables_there_are_and_leaves_the_rest_stale(
    fresh: BuildResult, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"stage 'words' has no table yet.*--from words"):
        make(diamond(), Store(tmp_path), only=("left",))
    longer = diamond(words="abcd")
    part = make(longer, store, only=("words",))
    assert part.partial
    assert [manifest.stage for manifest in part.manifests] == ["words"]
    assert part.stale == {
        "left": "words has been rebuilt",
        "right": "words has been rebuilt",
        "joined": "left is stale",
        "beside": "joined is stale",
        "last": "beside is stale",
    }
    again = make(longer, store, only=("left",))
    edges, states, _ = run_graph({"words", "left"})
    assert edges == {("words", "left")}
    assert states == {"words": "Reused", "left": "Completed"}
    assert (again["left"].count("rows"), set(again.stale)) == (4, {"right", "joined", "beside", "last"})
    lock = yaml.safe_load(again.lock.read_text())
    assert lock["selection"] == {"only": ["left"]}
    assert lock["stages"]["last"]["key"] == fresh["last"].key
    assert lock["stages"]["last"]["stale"] == "beside is stale"
    assert "stale" not in lock["stages"]["left"]
    whole = make(longer, store)
    assert whole.reused == {"words", "left"}
    assert whole.stale == {}


def test_from_builds_a_stage_and_what_stands_on_it(fresh: BuildResult, store: Store) -> None:
    longer = diamond(words="abcd")
    result = make(longer, store, start="joined")
    assert result.reused == {"left", "right", "joined", "beside", "last"}  # on the tables there are nothing changes
    assert result["last"] == fresh["last"]
    edges, _, _ = run_graph(STAGES - {"words"})
    assert edges == {edge for edge in EDGES if edge[0] != "words"}


def test_a_forced_stage_that_comes_out_as_before_wakes_nothing(fresh: BuildResult, store: Store) -> None:
    forced = make(diamond(), store, force=("left",))
    assert forced.reused == {"words", "right", "joined", "beside", "last"}
    assert forced["left"].key != fresh["left"].key
    assert forced.stale == {}
    later = reuse(diamond(), request=BuildRequest(system="toy"), store=store)
    assert later is not None
    assert later["left"] == forced["left"]


def test_a_build_cancelled_in_the_ui_ends_soon_and_goes_on_later(tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Cancelling

    store = Store(tmp_path)
    slow = SCRIPTED.model_copy(update={"options": {"latency_s": 0.5}})
    end = echoing("slow", words_stage(*"abcdefghijklmnopqrstuvwxyz"), model=slow)

    def cancel() -> None:
        with get_client(sync_client=True) as client:
            while not list(tmp_path.glob("toy/slow/*/part-*.json")):
                time.sleep(0.05)
            [run] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
            assert run.state_name == "Running"
            client.set_flow_run_state(run.id, Cancelling())

    canceller = threading.Thread(target=copy_context().run, args=(cancel,))  # with the settings that name the server
    canceller.start()
    with pytest.raises(BuildCancelledError, match="was cancelled in Prefect's UI; finished parts are kept"):
        make(end, store)
    canceller.join()
    with get_client(sync_client=True) as client:
        assert client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0].state_name == "Cancelled"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("toy/slow/*/part-*.json")}
    assert 0 < len(kept) < 13
    finished = make(end, store)
    assert finished["slow"].count("rows") == 26
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_every_build_leaves_a_page_for_each_table_and_its_events(tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    store = Store(tmp_path)
    results = [make(diamond(), store), make(diamond(words="abcd"), store, only=("words",))]
    with get_client(sync_client=True) as client:

        def pages(key: str) -> list[str]:
            found = client.request(
                "POST",
                "/artifacts/filter",
                json={"artifacts": ArtifactFilter(key=ArtifactFilterKey(any_=[key])).model_dump(mode="json")},
            ).json()
            return [page["data"] for page in found if any(result.build in page["data"] for result in results)]

        assert len(pages("toy-words")) == 2  # made twice
        assert any("STALE" in page for page in pages("toy-last"))  # by the second build
        assert any(f"toy: build {results[1].build}" in page for page in pages("toy"))
    for result in results:
        events = [json.loads(line) for line in result.lock.with_suffix(".openlineage.jsonl").read_text().splitlines()]
        assert events[-1]["eventType"] == "COMPLETE"
        assert {event["job"]["name"] for event in events} == {"toy"} | {f"toy.{m.stage}" for m in result.manifests}


def test_a_table_of_another_system_is_read_as_it_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = built(store, words_stage("a", "b"), build="earlier", system="source")
    table = store.published("source", "words", lock.stages["words"].key)
    assert table
    result = make(echoing("left", published_stage(table.ref, reader="toy")), store)
    assert [manifest.stage for manifest in result.manifests] == ["left"]
    assert result.reads == {"source_words": table}
    assert result.released.stage == "left"
    assert result.reused == frozenset()
    again = make(echoing("left", published_stage(table.ref, reader="toy")), store)
    assert again.reused == {"left"}

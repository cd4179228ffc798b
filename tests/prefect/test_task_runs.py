from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect_api import Api
from prefect_home import Prefect

from normloom.prefect.task_runs import task_runs
from normloom.run.build import BuildRequest, build
from normloom.store.store import Store
from normloom.testing.toy import Echo, echo_stage, words_stage
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

STAGES = {"words", "echo", "last"}


@pytest.fixture(scope="module")
def api(shared_prefect: Prefect) -> Iterator[Api]:
    with shared_prefect.used():
        yield Api(shared_prefect.url, alive=lambda: True)


def make(store: Store, **last: Any) -> None:
    """Build words, their echoes and the echoes of these, the last with arguments of its own."""
    first = echo_stage(words_stage("a", "b"))
    end = replace(echo_stage(first), name="last", arguments=Echo(**last))
    request = BuildRequest(system="toy", profile="test", quarantine_budget=0.5)
    build(end, request=request, store=store, pool=Pool(Resources(actors=0)))


def newest(api: Api) -> str:
    return str(api.found("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["id"])


def recorded(api: Api, run: str, names: Set[str]) -> dict[str, dict[str, Any]]:
    """Return the task runs of a run by name once the server has recorded that they have ended."""

    def ended() -> dict[str, dict[str, Any]] | None:
        tasks = {each["name"]: each for each in api.tasks(run)}
        return tasks if set(tasks) == names else None

    return api.until(ended) or {}


def states(api: Api, task: dict[str, Any]) -> list[str]:
    found = api.call(f"/task_run_states/?task_run_id={task['id']}")
    return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]


def test_a_table_that_is_there_is_reported_once_when_it_has_been_looked_up(tmp_path: Path, api: Api) -> None:
    store = Store(tmp_path)
    make(store)
    make(store, drop="b")
    tasks = recorded(api, newest(api), STAGES)
    assert states(api, tasks["words"]) == states(api, tasks["echo"]) == ["Reused"]
    assert states(api, tasks["last"]) == ["Pending", "Running", "Completed"]
    reused = tasks["echo"]
    assert reused["start_time"] < reused["end_time"] == reused["state"]["timestamp"]
    assert reused["total_run_time"] > 0
    assert (reused["run_count"], reused["flow_run_run_count"]) == (1, 1)
    assert [each["id"] for each in reused["task_inputs"]["inputs"]] == [tasks["words"]["id"]]


def test_a_build_with_nothing_to_make_leaves_the_page_of_each_table_once(tmp_path: Path, api: Api) -> None:
    store = Store(tmp_path)
    make(store)
    make(store)
    run = newest(api)
    tasks = recorded(api, run, STAGES)
    assert [states(api, task) for task in tasks.values()] == [["Reused"]] * 3
    pages = {each["key"]: each for each in api.found("/artifacts/filter", flow_runs={"id": {"any_": [run]}})}
    assert {f"toy-{stage}": task["id"] for stage, task in tasks.items()}.items() <= {
        key: page["task_run_id"] for key, page in pages.items()
    }.items()
    for stage in STAGES:
        page = pages[f"toy-{stage}"]
        assert page["created"] == page["updated"]
        assert "Reused from build" in page["data"]


def test_a_task_that_fails_at_once_keeps_what_reads_it_from_beginning(api: Api) -> None:
    @task(persist_result=False)
    def fails() -> None:
        raise ValueError("no such table")

    @task(persist_result=False)
    def reads(of: object) -> None:
        raise AssertionError(of)

    @flow
    def run() -> str:
        from prefect.context import FlowRunContext

        with task_runs() as runs:
            first = runs.submit(fails, "first", {}, brief=True)
            second = runs.submit(reads, "second", {"of": first}, brief=True)
            second.wait()
        context = FlowRunContext.get()
        assert context
        assert context.flow_run
        return str(context.flow_run.id)

    tasks = recorded(api, run(), {"first", "second"})
    assert (states(api, tasks["first"]), states(api, tasks["second"])) == (["Failed"], ["NotReady"])
    assert "no such table" in tasks["first"]["state"]["message"]

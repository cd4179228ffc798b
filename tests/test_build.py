from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from toy import ECHOES, SCRIPTED, Echo, echo, words_stage

from normloom.build import BuildResult, build, reuse
from normloom.errors import QuarantineBudgetError
from normloom.models.protocol import ModelSpec
from normloom.pool import Pool, Resources
from normloom.stage import Stage
from normloom.store import Store


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
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


def echo_beside(rows, arguments, side, model):  # noqa: ANN001, ANN201, ARG001
    return echo(rows, arguments, model)


def diamond(*, model: ModelSpec = SCRIPTED) -> Stage:
    """Six stages: a diamond, one table read twice, and one read as a side table."""
    words = words_stage("a", "b", "c")
    left, right = echoing("left", words), echoing("right", words, model=model)
    joined = echoing("joined", left, right)
    beside = echoing("beside", joined, sides=(left,))
    return echoing("last", beside, joined)


def make(end: Stage, store: Store) -> BuildResult:
    return build(end, system="toy", store=store, pool=Pool(Resources(actors=0)), tags=["profile:test"])


def run_graph() -> tuple[set[tuple[str, str]], dict[str, str], list[str]]:
    """Return the edges of the newest run in Prefect's graph, the state name of each stage and the run's tags."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        nodes = dict(client.request("GET", "/flow_runs/{id}/graph-v2", path_params={"id": run.id}).json()["nodes"])
        states = {task.name: task.state_name for task in client.read_task_runs() if task.flow_run_id == run.id}
    edges = {(nodes[parent["id"]]["label"], node["label"]) for node in nodes.values() for parent in node["parents"]}
    return edges, states, run.tags


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
    edges, states, tags = run_graph()
    assert edges == EDGES
    assert set(states.values()) == {"Completed"}
    assert {"toy", "profile:test"} <= set(tags)
    assert fresh.reused == frozenset()

    changed = make(diamond(model=SCRIPTED.model_copy(update={"model": "other"})), store)
    edges, states, _ = run_graph()
    assert edges == EDGES
    # Only `right` has another model. `joined` reads its words and not its echoes, so it comes out the same,
    # and what stands on it is not made again.
    assert changed.reused == {"words", "left", "beside", "last"}
    assert changed["joined"].content == fresh["joined"].content
    assert {name for name, state in states.items() if state == "Reused"} == changed.reused


def test_a_finished_build_is_recognised_without_starting_anything(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert reuse(diamond(), system="toy", store=store) is None
    fresh = make(diamond(), store)
    again = reuse(diamond(), system="toy", store=store)
    assert again is not None
    assert again.manifests == fresh.manifests
    assert again.reused == {"words", "left", "right", "joined", "beside", "last"}
    assert again.lock != fresh.lock


def test_the_lock_names_each_stage_s_key_content_rows_and_model(tmp_path: Path) -> None:
    result = make(diamond(), Store(tmp_path))
    lock = yaml.safe_load(result.lock.read_text())
    assert (lock["system"], lock["build"]) == ("toy", result.build)
    assert list(lock["stages"]) == ["words", "left", "right", "joined", "beside", "last"]
    last = lock["stages"]["last"]
    assert (last["key"], last["content"], last["rows"]) == (result["last"].key, result["last"].content, 12 + 12 - 12)
    assert last["model"]["model"] == "toy"


def test_a_build_that_fails_raises_its_cause_and_goes_on_from_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failing = SCRIPTED.model_copy(update={"options": {"raise_on": ""}})
    with pytest.raises(QuarantineBudgetError, match="stage 'right' put 2 of 3 rows into quarantine"):
        make(diamond(model=failing), store)
    assert {manifest.stage for manifest in store.newest("toy")} == {"words", "left"}
    mended = make(diamond(), store)
    assert {"words", "left"} <= mended.reused

"""The benchmark as a build: a run of Prefect whose graph is that of the stages, with models as its branches."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from prefect_home import Prefect
from rich.table import Table
from test_benchmark_flow import configured

from normloom.core.stage import Stage
from normloom.flows.benchmark.flow import BENCHMARK, benchmark
from normloom.flows.benchmark.leaderboard import board_rows, boards, sections
from normloom.run.build import BuildRequest, BuildResult, build, reuse
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


@pytest.fixture(scope="module", autouse=True)
def prefect(shared_prefect: Prefect) -> Iterator[None]:
    with shared_prefect.used():
        yield


REQUEST = BuildRequest(system=BENCHMARK.name, profile="test")


def ends() -> list[Stage]:
    return benchmark(configured())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def result(store: Store, prefect: None) -> BuildResult:  # noqa: ARG001  # it must be there
    return build(*ends(), request=REQUEST, store=store, pool=Pool(Resources(actors=0)))


def edges_in_prefect(stages: set[str]) -> set[tuple[str, str]]:
    """Return the edges of the newest run's graph, once the server has recorded all stages."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        for _ in range(120):
            nodes = dict(client.request("GET", "/flow_runs/{id}/graph-v2", path_params={"id": run.id}).json()["nodes"])
            if {node["label"] for node in nodes.values()} == stages:
                break
            time.sleep(0.5)
    return {(nodes[parent["id"]]["label"], node["label"]) for node in nodes.values() for parent in node["parents"]}


def test_the_run_graph_has_the_models_as_branches(result: BuildResult) -> None:
    stages = stages_of(*ends())
    names = {stage.name for stage in stages}
    assert {manifest.stage for manifest in result.manifests} == names
    expected = {(upstream.name, stage.name) for stage in stages for upstream in stage.upstream}
    assert edges_in_prefect(names) == expected


def test_the_leaderboard_is_what_a_build_releases_and_shows(result: BuildResult, store: Store) -> None:
    assert result.released.stage == "leaderboard"
    drawn = sections(result, store)
    titles = [str(table.title) for table in drawn if isinstance(table, Table)]
    assert len(titles) == len(drawn)
    assert [title.partition(":")[0] for title in titles] == ["Detector", "Responder"]
    assert all("built-in, 24 rows" in title for title in titles)
    assert len(list(boards(board_rows(store)))) == 2


def test_a_build_that_changes_nothing_reuses_every_table(result: BuildResult, store: Store) -> None:
    again = reuse(*ends(), request=REQUEST, store=store)
    assert again is not None
    assert again.manifests == result.manifests

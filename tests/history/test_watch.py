"""Figures of a store for Prometheus, read with Prometheus' own parser, and stale releases that are told."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Scheduled
from prefect_home import own_prefect
from prometheus_client.parser import text_string_to_metric_families
from test_freshness import BEGAN
from typer.testing import CliRunner

from normloom.cli.commands.reading.metrics import metrics
from normloom.core.errors import UsageError
from normloom.prefect.notifications.watch import look, watching
from normloom.store.store import Store
from normloom.testing.builds import build_id, built
from normloom.testing.toy import echo_stage, words_stage

TOY = echo_stage(words_stage(*"abcdef"), drop="b", aside="c")
Figures = dict[tuple[str, ...], float]


def figures(text: str) -> dict[str, Figures]:
    """Return the values of each figure by those of its labels, in the order of their names."""
    return {
        family.name: {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    built(made, TOY, build=build_id(1), fresh_hours=1)
    lock = made.root / "toy" / "builds" / f"{build_id(1)}.yaml"
    spent = "{requests: 7, tokens_in: 100, tokens_out: 30, cost: 0.25, currency: EUR}"
    for number in (2, 3):
        before, _, _ = lock.read_text().replace(build_id(1), build_id(number)).partition("spent:")
        stages = "stages:" + lock.read_text().partition("\nstages:")[2]
        made.write_build("toy", build_id(number), f"{before}spent: {spent}\n{stages}")
    return made


def test_figures_of_releases_tables_and_builds(store: Store, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(metrics)
    where = ["--store", str(store.root)]
    found = figures(CliRunner().invoke(app, where, catch_exceptions=False).stdout)
    assert found["normloom_release_rows"] == {("toy",): 4}
    assert found["normloom_release_stale"] == {("toy",): 1}
    assert found["normloom_release_confirmed_timestamp_seconds"] == {("toy",): BEGAN.timestamp() + 3}
    assert {labels: rows for labels, rows in found["normloom_table_rows"].items() if rows} == {
        ("rows", "echo", "toy"): 4,
        ("dropped", "echo", "toy"): 1,
        ("quarantined", "echo", "toy"): 1,
        ("rows", "words", "toy"): 6,
    }
    assert found["normloom_table_dropped_rows"] == {("asked for", "echo", "toy"): 1}
    assert found["normloom_table_quarantined_rows"] == {("asked", "echo", "toy"): 1}
    assert found["normloom_table_failed_checks"] == {("echo", "toy"): 0, ("words", "toy"): 0}
    assert found["normloom_tokens"] == {("read", "toy"): 200, ("written", "toy"): 60}
    assert found["normloom_requests"] == {("toy",): 14}
    assert found["normloom_cost"] == {("EUR", "toy"): 0.5}
    assert found["normloom_builds_finished"] == {("toy",): 3}
    assert set(found["normloom_builds"].values()) == {0}

    file = tmp_path / "normloom.prom"
    with pytest.raises(UsageError, match=r"cannot write .*: No such file or directory; name a file"):
        CliRunner().invoke(app, [*where, "--textfile", str(file.parent / "none" / "a.prom")], catch_exceptions=False)
    CliRunner().invoke(app, [*where, "--textfile", str(file)], catch_exceptions=False)
    written = figures(file.read_text())
    assert written.keys() == found.keys()
    assert written["normloom_cost"] == found["normloom_cost"]


@flow(name="toy")
def toy() -> None:
    """Stand for a deployment's flow in runs that never begin."""


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_prefect(tmp_path_factory.mktemp("watch") / "home"):
        yield


@pytest.mark.usefixtures("_server")
def test_a_watched_store_serves_its_figures_and_stale_releases_are_told_once(store: Store) -> None:
    with get_client(sync_client=True) as client:
        client.create_flow_run(toy, state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=1)))
        client.create_flow_run(toy, state=Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1)))

        def told() -> list[str]:
            wanted = {"filter": {"event": {"name": ["normloom.release.stale"]}}}
            events = client.request("POST", "/events/filter", json=wanted).json()["events"]
            return [event["payload"]["message"] for event in events]

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(UsageError, match=f"--metrics-port {port}"), watching(store.root, metrics_port=port):
                pass
        with watching(store.root, metrics_port=port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                found = figures(answer.read().decode())
            assert found["normloom_runs_waiting"] == {("toy",): 1}
            deadline = time.monotonic() + 60
            while not told():
                assert time.monotonic() < deadline
                time.sleep(0.2)
        [message] = told()
        assert message.startswith("toy (4 rows): last confirmed")
        assert f"by build {build_id(3)}, release.fresh_hours is 1" in message


@pytest.mark.usefixtures("_server")
def test_a_release_is_told_again_when_a_build_confirmed_it_in_between(store: Store) -> None:
    assert look(store, BEGAN) == []
    later = BEGAN + timedelta(hours=2)
    assert look(store, later) == ["toy"]
    assert look(store, later) == []
    built(store, TOY, build=build_id(9), fresh_hours=1)
    assert look(store, later + timedelta(hours=1)) == ["toy"]

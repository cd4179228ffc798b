"""Events on their way to a collector."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from openlineage_schemas import validate
from openlineage_toys import WHOLE, Collector, make, sequence

from normloom.store.store import Store
from normloom.testing.toy import echo_stage

pytestmark = pytest.mark.usefixtures("not_configured")


def test_events_are_sent_to_the_collector_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", collector.url)
    recorded = make(Store(tmp_path), echo_stage)
    assert {path for path, _ in collector.received} == {"/api/v1/lineage"}
    received = [event for _, event in collector.received]
    assert sequence(received) == sequence(recorded) == WHOLE
    for sent, kept in zip(received, recorded, strict=True):
        validate(sent)
        assert (sent["run"]["runId"], sent["inputs"], sent["outputs"]) == (
            kept["run"]["runId"],
            kept["inputs"],
            kept["outputs"],
        )
    assert warnings(caplog) == []


def test_a_configuration_file_is_followed(tmp_path: Path, collector: Collector) -> None:
    Path("openlineage.yml").write_text(
        f"transport: {{type: http, url: '{collector.url}', endpoint: lineage}}\ntags: {{run: {{team: alignment}}}}\n"
    )
    make(Store(tmp_path))
    assert {path for path, _ in collector.received} == {"/lineage"}
    tags = collector.received[0][1]["run"]["facets"]["tags"]["tags"]
    assert {"build", "profile", "team"} <= {tag["key"] for tag in tags}


def test_disabled_means_that_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", collector.url)
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert sequence(make(Store(tmp_path), echo_stage)) == WHOLE
    assert collector.received == []


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["dead", "silent"])
def test_a_collector_that_is_gone_costs_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    monkeypatch.setattr("normloom.lineage.openlineage.PATIENCE", 0.2)
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", request.getfixturevalue(address))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    assert sequence(make(Store(tmp_path), echo_stage)) == WHOLE
    [warning] = warnings(caplog)
    assert warning.startswith("events did not reach the OpenLineage collector")
    assert warning.endswith("b1.openlineage.jsonl")


def test_a_configuration_that_is_wrong_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    assert sequence(make(Store(tmp_path))) == [*WHOLE[:3], WHOLE[-1]]
    [warning] = warnings(caplog)
    assert warning.startswith("the configuration of OpenLineage cannot be used")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

"""A deployment's build that waited for answers is scheduled again when they are there, once."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect_home import Prefect

import normloom as nl
from normloom.history.unfinished import UnfinishedBuild, recorded
from normloom.labelling.queue import LabelQueue, open_queue
from normloom.prefect.notifications.answered import _GONE_ON, go_on
from normloom.store.layout import BUILDS
from normloom.store.store import Store
from normloom.testing import made, words_stage
from normloom.testing.builds import built

PARAMETERS = {"limit": 2}


def waiting(store: Store, run: UUID, build: str) -> LabelQueue:
    """Leave a build that waits for two answers, as one of a deployment does."""
    asked = nl.labels("tone", {"polite": ["yes", "no"]})
    flow = nl.ask(nl.table([{"text": "a"}, {"text": "b"}]), asked, show=["text"])
    record = UnfinishedBuild(system="toy", build=build, flow_run=str(run))

    def build_it() -> None:
        with recorded(store, record) as held:
            try:
                made("toy", [flow], store)
            except nl.WaitingError as error:
                held.ended(error, stage="answered_tone")
                raise

    with pytest.raises(nl.WaitingError):
        build_it()
    return open_queue(store, "tone")


def test_it_goes_on_with_the_answers(shared_prefect: Prefect, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    with shared_prefect.used(), get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow_from_name("toy"), "waits", parameters=PARAMETERS)
        first = client.create_flow_run_from_deployment(deployment, parameters=PARAMETERS)

        def runs() -> list[UUID]:
            mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
            return [run.id for run in client.read_flow_runs(flow_run_filter=mine)]

        queue = waiting(store, first.id, "20261127T100000-aa01")
        rows = queue.next("ada", 2)
        queue.record(rows[0], {"polite": "yes"}, "ada")
        assert go_on(store) == []
        queue.record(rows[1], {"polite": "no"}, "ada")
        assert go_on(store) == ["toy"]
        [again] = set(runs()) - {first.id}
        found = client.read_flow_run(again)
        assert found.parameters == PARAMETERS
        assert found.state
        assert found.state.is_scheduled()
        assert go_on(store) == []  # once
        built(store, words_stage("a"), build="20261127T110000-aa02")
        (store.root / "toy" / BUILDS / _GONE_ON).unlink()
        assert go_on(store) == []  # a later build has what it needed
        (store.root / "toy" / BUILDS / "20261127T110000-aa02.yaml").write_text("{")
        assert go_on(store) == []
        assert "cannot tell whether toy can continue: " in caplog.text
        assert len(runs()) == 2


@flow(name="toy")
def alone() -> None:
    """Stand for a flow that a terminal runs."""


def test_a_run_of_a_terminal_is_left_to_its_command(shared_prefect: Prefect, tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = waiting(store, UUID(int=7), "20261127T100000-aa01")
    for row in queue.next("ada", 2):
        queue.record(row, {"polite": "yes"}, "ada")
    with shared_prefect.used(), get_client(sync_client=True) as client:
        assert go_on(store) == []  # the server does not know it
        run = client.create_flow_run(alone)
        [record] = (store.root / "toy" / BUILDS).glob("*.json")
        record.write_text(record.read_text().replace(str(UUID(int=7)), str(run.id)))
        assert go_on(store) == []

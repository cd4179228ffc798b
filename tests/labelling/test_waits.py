"""A build that waits for people: its run in Prefect says so, and the next one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_answers import answer_all, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect_home import Prefect

from normloom.core.errors import WaitingError
from normloom.labelling.queue import open_queue
from normloom.run.build import BuildRequest, build
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def test_its_run_waits_and_the_next_one_goes_on(shared_prefect: Prefect, tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make() -> int:
        request = BuildRequest(system="toy", target=None)
        return build(flow(), request=request, store=store, pool=Pool(Resources(actors=0))).released.count("rows")

    with shared_prefect.used(), get_client(sync_client=True) as client:
        where = f"--store {tmp_path}"
        with pytest.raises(WaitingError, match=f"4 rows wait for answers: normloom label tone {where}"):
            make()
        [run] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        assert run.state
        assert (run.state.name, run.state.type.value) == ("Waiting", "COMPLETED")
        assert f"4 rows wait for answers: normloom label tone {where}" in str(run.state.message)
        assert answer_all(open_queue(store, "tone")) == 4
        assert make() == 4

"""Hand the builds of a worker that stops back to Prefect, which gives them to the next worker.

    NORMLOOM_WORKER=NAME python -m normloom.prefect.serving.hand_back WORKER

A build that dies with its worker would be Crashed, and someone would have to start it again. WORKER is the process id
of Prefect's worker, NORMLOOM_WORKER what it and its builds have in their environment: `deployments/worker.sh` sets it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from uuid import UUID

import psutil

NAME = "NORMLOOM_WORKER"
RUN = "PREFECT__FLOW_RUN_ID"  # by which Prefect tells a process which run it is to execute
KILLED_SECONDS = 10.0


def hand_back(worker: int, name: str) -> None:
    """End a worker and its builds at once and schedule their runs again.

    They are killed, since a worker and a build that end in order report a crash. The store keeps finished parts.
    """
    if psutil.pid_exists(worker):
        psutil.Process(worker).kill()  # first, since it would report what happens to the others
    runs = _runs(name)
    for process in runs:
        process.kill()
    psutil.wait_procs(runs, KILLED_SECONDS)
    _schedule(set(runs.values()))


def _runs(name: str) -> dict[psutil.Process, UUID]:
    """Return the processes of a worker's builds, each with its run."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # another user's, or gone
            continue
        if environment.get(NAME) == name and RUN in environment:
            found[process] = UUID(environment[RUN])
    return found


def _schedule(runs: Iterable[UUID]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import AwaitingRetry

    with get_client(sync_client=True) as client:
        for run in runs:
            state = client.read_flow_run(run).state
            if state and (state.is_running() or state.is_pending()):  # not one that has ended, or that someone cancels
                client.set_flow_run_state(run, AwaitingRetry(message="its worker stopped; finished parts are kept"))


if __name__ == "__main__":
    hand_back(int(sys.argv[1]), os.environ[NAME])

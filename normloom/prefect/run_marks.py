"""The runs in Prefect of a store's builds: whose process is at work, and what becomes of those whose process is gone.

A process holds a file of the store for each run that it works at, and the kernel frees the file however the process
ends. A run whose file nobody holds, and that is still at work as far as Prefect's server knows, has ended unseen: it
was interrupted, killed, or the server was away at its end. Whoever comes next tells the server.

    python -m normloom.prefect.run_marks STORE
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.store.files import writing

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

RUNS = ".runs"  # folder of a store
ASKED_AT_ONCE = 200  # runs in one request to the server: as many as it answers for
SETTLE_SECONDS = 5.0
FORGOTTEN_SECONDS = 30 * 86400.0  # after which a run that no server knew of is forgotten
REMEDY = "finished parts are kept, build again to resume"

log = logging.getLogger(__name__)
_ours: dict[Path, HeldRun] = {}  # what this process works at


class RunMark(BaseModel):
    """One attempt at a run: `state` is the id of the state *Running* that the server gave it.

    `outcome` is how the work ended, None as long as it has not.
    """

    model_config = ConfigDict(frozen=True)
    run: UUID
    state: UUID
    process: int = Field(default_factory=os.getpid)
    host: str = Field(default_factory=platform.node)
    outcome: Literal["completed", "failed", "interrupted"] | None = None
    message: str = ""


@dataclass(kw_only=True)
class HeldRun:
    """A run that this process works at."""

    path: Path
    descriptor: int
    mark: RunMark

    @classmethod
    def hold(cls, root: Path, run: FlowRun) -> Self | None:
        """Hold the file of a run until it is released or the process ends; None if this process holds it already."""
        assert run.state
        mark = RunMark(run=run.id, state=run.state.id)
        path = root / RUNS / f"{mark.run}.{mark.state}.json"
        if path in _ours:
            return None
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, mark.model_dump_json().encode())
        held = _ours[path] = cls(path=path, descriptor=descriptor, mark=mark)
        return held

    def conclude(self, outcome: Literal["completed", "failed", "interrupted"], message: str) -> None:
        """Note how the work ended, for the process that reports it to the server."""
        self.mark = self.mark.model_copy(update={"outcome": outcome, "message": message})
        text = self.mark.model_dump_json().encode()  # longer than what it replaces
        with writing(self.path):
            os.pwrite(self.descriptor, text, 0)

    def release(self, *, told: bool) -> None:
        """Let go of the run; `told` says that the server knows of its end."""
        if told:
            self.path.unlink(missing_ok=True)
        del _ours[self.path]
        os.close(self.descriptor)


def abandon(message: str) -> None:
    """Tell the server that the runs of this process are interrupted, just before the process ends; in one short try."""
    from prefect.client.orchestration import get_client

    held = list(_ours.values())
    for one in held:
        one.conclude("interrupted", message)
    if held:
        with _short_try(), get_client(sync_client=True) as client:
            _settle(client, {one.path: one.mark for one in held})


def settle(root: Path) -> int:
    """Tell the server that PREFECT_API_URL names of the ends that it does not know; return how many.

    A run that is to be cancelled becomes *Cancelled*, other runs *Crashed*, or what came of them if the server was away
    at their end. Runs that the server does not know are left for the one that does.
    """
    with _ended(root / RUNS) as marks:
        if not marks:
            return 0
        from httpx import HTTPError
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        try:
            with _short_try(), get_client(sync_client=True) as client:
                return _settle(client, marks)
        except (HTTPError, RuntimeError, ObjectNotFound) as error:  # no answer, or a run that was removed meanwhile
            log.warning(
                "Prefect's server could not be given the end of %d runs whose process is gone: %s", len(marks), error
            )
            return 0


@contextmanager
def settling(root: Path) -> Iterator[None]:
    """Tell the server now, and every few seconds meanwhile, of the ends that it does not know."""
    settle(root)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SETTLE_SECONDS):
            settle(root)

    here = copy_context()  # Prefect's settings, above all which server, are the context's
    watcher = threading.Thread(target=here.run, args=(watch,), name="run-marks", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _short_try() -> Iterator[None]:
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 5.0}):
        yield


@contextmanager
def _ended(folder: Path) -> Iterator[dict[Path, RunMark]]:
    """Give the runs whose process is gone; no other process is given them meanwhile."""
    found: dict[Path, RunMark] = {}
    descriptors: list[int] = []
    try:
        for path in sorted(folder.glob("*.json")):
            try:
                descriptors.append(descriptor := os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found[path] = RunMark.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):  # at work, gone meanwhile or only begun
                continue
        yield found
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _settle(client: SyncPrefectClient, marks: dict[Path, RunMark]) -> int:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    told = 0
    runs: dict[UUID, FlowRun] = {}
    for some in _batches({mark.run for mark in marks.values()}):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=some))
        runs |= {run.id: run for run in client.read_flow_runs(flow_run_filter=wanted)}
    for path, mark in marks.items():
        run = runs.get(mark.run)
        if run is None and path.exists() and time.time() - path.stat().st_mtime < FORGOTTEN_SECONDS:
            continue
        if run and _is_at_work(client, run, mark):
            _end(client, run, mark)
            told += 1
        path.unlink(missing_ok=True)
    return told


def _batches(runs: Iterable[UUID]) -> Iterator[list[UUID]]:
    ordered = sorted(runs)
    yield from (ordered[start : start + ASKED_AT_ONCE] for start in range(0, len(ordered), ASKED_AT_ONCE))


def _is_at_work(client: SyncPrefectClient, run: FlowRun, mark: RunMark) -> bool:
    """Return whether, for all the server knows, this attempt at the run is at work; one after it may be."""
    if run.state is None or not (run.state.is_running() or run.state.is_cancelling()):
        return False
    states = client.read_flow_run_states(run.id)
    attempts = [state for state in sorted(states, key=lambda state: state.timestamp) if state.is_running()]
    return bool(attempts) and attempts[-1].id == mark.state


def _end(client: SyncPrefectClient, run: FlowRun, mark: RunMark) -> None:
    """Give a run, and its tasks that are at work, the state that tells what became of them."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
    from prefect.client.schemas.objects import StateType

    working = TaskRunFilter.model_validate({"state": {"type": {"any_": [StateType.RUNNING]}}})
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), task_run_filter=working
    )
    client.set_flow_run_state(run.id, _state(run, mark), force=True)  # first: it frees the run's slot
    for task in tasks:
        client.set_task_run_state(task.id, _state(run, mark), force=True)


def _state(run: FlowRun, mark: RunMark) -> State[Any]:
    from prefect.states import Cancelled, Completed, Crashed, Failed

    if mark.outcome == "completed":
        return Completed(message=mark.message)
    if run.state and run.state.is_cancelling():
        return Cancelled(message=f"cancelled; {REMEDY}")
    if mark.outcome == "failed":
        return Failed(message=mark.message)
    if mark.outcome == "interrupted":
        return Crashed(message=f"{mark.message}; {REMEDY}")
    return Crashed(message=f"process {mark.process} on {mark.host} ended abruptly, as if killed; {REMEDY}")


if __name__ == "__main__":
    settle(Path(sys.argv[1]))

"""The flow run of a build: one of its own, or that of a deployment which is under way."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from normloom.core.errors import BuildCancelledError, NormloomError, WaitingError, cause
from normloom.prefect.flow_log import logged
from normloom.prefect.reach import ServerReach, few_tries, is_busy
from normloom.prefect.run_marks import HeldRun
from normloom.workers.pool import Pool

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

CANCEL_POLL_SECONDS = 2.0
BUSY_SECONDS = 60.0  # that a server may take to accept a run
BUSY_PAUSE = 1.0  # seconds between two offers: a server does not tell when it is idle
WAITING = "Waiting"  # name of the state of what waits for work sent elsewhere

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The flow run that a build wants: its flow and name, what it is found by, the store that it writes."""

    flow: str
    name: str
    tags: Sequence[str]
    parameters: Mapping[str, Any]
    store: Path


@dataclass(frozen=True)
class Account:
    """How many tables of a build were made by it, and how many were there already."""

    made: int
    reused: int

    def __str__(self) -> str:
        return f"{self.made} of {self.made + self.reused} tables made, {self.reused} reused"

    def state(self) -> State[Any]:
        """Return the state of a run that ends so."""
        from prefect.states import Completed

        return Completed(name="Completed" if self.made else "Reused", message=str(self), data=str(self))


def waiting(error: WaitingError) -> State[Any]:
    """Return the state of a run that waits for work sent elsewhere: no failure, and nobody is notified."""
    from prefect.states import Completed

    return Completed(name=WAITING, message=str(error))


def under_way() -> bool:
    """Return whether this code is part of a flow run."""
    if "prefect" not in sys.modules:  # then there is none, and importing it takes a second
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def current_flow_run() -> str:
    """Return the id of the flow run that is under way."""
    from prefect.context import FlowRunContext

    run = FlowRunContext.get()
    assert run
    assert run.flow_run
    return str(run.flow_run.id)


def current_task_run() -> str | None:
    """Return the id of the task run that this code is part of, None outside of one."""
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return str(context.task_run.id) if context else None


def hold_run_under_way(store: Path) -> FlowRun | None:
    """Hold the flow run that this code is part of and return it, None if there is none.

    It is held until the process ends: Prefect records its end after all else.
    """
    if not under_way():
        return None
    from prefect.context import FlowRunContext

    run = FlowRunContext.get()
    assert run
    assert run.flow_run
    HeldRun.hold(store, run.flow_run)
    return run.flow_run


def in_flow_run(
    work: Callable[[], Result],
    *,
    request: RunRequest,
    pool: Pool,
    reach: ServerReach,
    account: Callable[[Result], Account],
) -> Result:
    """Do the work in the flow run that is under way (a deployment's), or else in one of its own.

    The last state of its own run has the account of the result. Raises BuildCancelledError when that run is cancelled
    in Prefect's UI, and NormloomError if the server does not take it; a server that goes away later does not end the
    work.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if run := hold_run_under_way(request.store):
        _name_run(run, request)
        return work()
    return _OwnRun(work=work, request=request, pool=pool, reach=reach, account=account).go()


@dataclass(kw_only=True)
class _OwnRun(Generic[Result]):
    """A flow run that no deployment started, and the outcome of its work."""

    work: Callable[[], Result]
    request: RunRequest
    pool: Pool
    reach: ServerReach
    account: Callable[[Result], Account]
    held: HeldRun | None = None
    results: list[Result] = field(default_factory=list)
    failure: Exception | None = None

    def go(self) -> Result:
        """Run the flow and return the work's result, or raise its error."""
        from prefect import flow
        from prefect import tags as tagged

        handler = signal.getsignal(signal.SIGTERM)

        @flow(
            name=self.request.flow,
            flow_run_name=self.request.name,
            validate_parameters=False,
        )
        def weave(**parameters: Any) -> Any:  # noqa: ARG001  # Prefect shows them with the run
            with _sigterm_by(handler), logged():
                return self._do()

        state: State[Any] | None = None
        try:
            with tagged(*self.request.tags), few_tries():
                state = self._taken(lambda: weave(**self.request.parameters, return_state=True))
        except Exception as error:  # noqa: BLE001  # whatever Prefect makes of a server that does not answer
            self._lost(error)
        finally:
            if self.held:
                self.held.release(told=state is not None)
        return self._outcome(state)

    def _taken(self, run: Callable[[], Any]) -> Any:
        """Run the flow; a server that is busy with the runs of others is asked again until it takes this one."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return run()
            except Exception as error:
                if self.held or not is_busy(error) or time.monotonic() > until:
                    raise
            time.sleep(BUSY_PAUSE)
            self._withdraw()

    def _withdraw(self) -> None:
        """Delete a run that the server made but did not begin; it would stay pending for good."""
        from httpx import HTTPStatusError
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

        mine = FlowRunFilter(name=FlowRunFilterName(any_=[self.request.name]))
        try:
            with get_client(sync_client=True) as client:
                for run in client.read_flow_runs(flow_run_filter=mine):
                    client.delete_flow_run(run.id)
        except HTTPStatusError as error:
            if not is_busy(error):
                raise

    def _do(self) -> State[Any]:
        from prefect.context import FlowRunContext
        from prefect.states import Cancelled, Failed

        run = FlowRunContext.get()
        assert run
        assert run.flow_run
        self.held = HeldRun.hold(self.request.store, run.flow_run)
        with _cancelling(run.flow_run.id, self.pool, self.reach) as asked:
            try:
                self.results.append(self.work())
            except Exception as error:  # noqa: BLE001  # raised again once the run has its state
                if asked.is_set():
                    return Cancelled(message="finished parts are kept")
                self.failure = error
                if isinstance(error, WaitingError):
                    return waiting(error)
                return Failed(message=cause(error))
        return self.account(self.results[0]).state()

    def _lost(self, error: Exception) -> None:
        """Note the outcome of the work, for a server that missed it."""
        if self.held is None:
            raise NormloomError(
                f"Prefect's server did not accept the run of build {self.request.name} ({error}); is it up, and is "
                "PREFECT_API_URL right? Without that variable a build starts its own server"
            ) from error
        self.reach.lost(error)
        if self.failure:
            waits = isinstance(self.failure, WaitingError)
            self.held.conclude("completed" if waits else "failed", cause(self.failure))
        elif self.results:
            self.held.conclude("completed", str(self.account(self.results[0])))

    def _outcome(self, state: State[Any] | None) -> Result:
        if self.failure:
            raise self.failure
        if self.results:
            return self.results[0]
        if state and not state.is_cancelled():
            state.result()
        raise BuildCancelledError(
            f"build {self.request.name} was cancelled in Prefect's UI; finished parts are kept, rerun the command to "
            "resume"
        )


@contextmanager
def _sigterm_by(handler: Any) -> Iterator[None]:
    """Leave SIGTERM to the process that runs the flow: Prefect's own handler waits for stages at work, however long."""
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    prefect_s = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, prefect_s)


@contextmanager
def _cancelling(run: UUID, pool: Pool, reach: ServerReach) -> Iterator[threading.Event]:
    """Close the pool when the run is asked to cancel; nobody else does so for a run without a deployment."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client

    asked, ended = threading.Event(), threading.Event()

    def watch() -> None:
        with few_tries(0), get_client(sync_client=True) as client:
            while not ended.wait(CANCEL_POLL_SECONDS):
                try:
                    state = client.read_flow_run(run).state
                except (HTTPError, OSError) as error:  # a server that is away for a while does not end the build
                    reach.lost(error)
                    continue
                reach.back()
                if state and state.is_cancelling():
                    asked.set()
                    pool.close()
                    return

    here = copy_context()  # Prefect's settings, above all which server, are the context's
    watcher = threading.Thread(target=here.run, args=(watch,), name="cancel-watch", daemon=True)
    watcher.start()
    try:
        yield asked
    finally:
        ended.set()


def _name_run(run: FlowRun, request: RunRequest) -> None:
    """Let the run of a deployment carry the build's name and tags; a name that a person gave it stays."""
    from prefect.client.orchestration import get_client

    named = not _is_made_up(run.name)
    tags = {*run.tags, *request.tags, *([f"build:{request.name}"] if named else [])}
    with few_tries(), get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=run.name if named else request.name, tags=tags)


def _is_made_up(name: str) -> bool:
    """Return whether a run's name was generated: an adjective and an animal by Prefect, or a build's id."""
    from coolname.data import config

    def words(group: str) -> set[str]:
        entry: Any = config[group]
        if entry["type"] == "nested":
            return {word for inner in entry["lists"] for word in words(inner)}
        return set(entry["words"])

    adjective, _, animal = name.partition("-")
    return (adjective in words("adj_any") and animal in words("subj")) or bool(_BUILD.fullmatch(name))


_BUILD = re.compile(r"\d{8}T\d{6}-[0-9a-f]{4}")  # of a run that is tried again

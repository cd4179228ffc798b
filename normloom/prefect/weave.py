"""A build in Prefect: one flow run, with one task per stage.

Each task is submitted with the futures of the stages it reads, the one construction whose run graph
in Prefect's UI is exact. Prefect keeps no results: the store decides what is reused.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from normloom.core.errors import BuildCancelledError, NormloomError, cause
from normloom.core.stage import Stage
from normloom.core.table import Manifest, TableRef
from normloom.prefect.flow_log import logged
from normloom.prefect.pages.lineage_page import Lineage, publish_stage
from normloom.workers.pool import Pool

STAGES_AT_ONCE = 8  # threads that wait for actors or run stages without a model
CANCEL_POLL_SECONDS = 2.0

Result = TypeVar("Result")


class Make(Protocol):
    """Brings the table of a stage up to date."""

    def __call__(self, stage: Stage, inputs: Sequence[TableRef], sides: Sequence[TableRef]) -> tuple[Manifest, bool]:
        """Return the stage's table and whether it was there already."""
        ...


def under_way() -> bool:
    """Tell whether this code is part of a flow run."""
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


def submit_stages(stages: Sequence[Stage], make: Make, lineage: Lineage) -> dict[str, tuple[Manifest, bool]]:
    """Make the stages as tasks of the flow run that is under way; return each table and whether it was there already.

    Each task leaves the page of its table. Raises the error of the stage that failed first; it names the stage.
    """
    import prefect.artifacts  # noqa: F401  # here and not in the threads of the stages
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.states import Completed

    made: dict[str, tuple[Manifest, bool]] = {}

    def submit(stage: Stage, futures: Mapping[str, Any]) -> Any:
        @task(name=stage.name, task_run_name=stage.name, persist_result=False, cache_policy=NO_CACHE)
        def run(inputs: list[TableRef], sides: list[TableRef]) -> TableRef | State[TableRef]:
            with _failing(stage.name, lineage):
                manifest, reused = made[stage.name] = make(stage, inputs, sides)
            lineage.manifests[stage.name] = manifest
            if stage.table is None:
                publish_stage(lineage, stage.name)
            if reused:
                return Completed(name="Reused", message=f"key {manifest.key} is published", data=manifest.ref)
            return manifest.ref

        inputs = [futures[upstream.name] for upstream in stage.inputs if upstream.name in futures]
        return run.submit(inputs, [futures[upstream.name] for upstream in stage.sides if upstream.name in futures])

    futures: dict[str, Any] = {}
    for stage in stages:
        futures[stage.name] = submit(stage, futures)
    for future in futures.values():
        future.wait()
    for error in lineage.failed.values():
        raise error
    for future in futures.values():  # what fails outside of a stage
        future.result()
    return made


@contextmanager
def _failing(stage: str, lineage: Lineage) -> Iterator[None]:
    """Keep the error of a stage that fails, which begins with the stage's name if it is one of ours."""
    try:
        yield
    except Exception as error:
        failed = lineage.failed[stage] = _of_stage(error, stage)
        if failed is error:
            raise
        raise failed from error


def _of_stage(error: Exception, stage: str) -> Exception:
    begin = f"stage {stage!r}"
    if isinstance(error, BuildCancelledError) or not isinstance(error, NormloomError) or str(error).startswith(begin):
        return error
    return type(error)(f"{begin} failed: {error}")


def in_flow_run(
    work: Callable[[], Result],
    *,
    name: str,
    run_name: str,
    tags: Sequence[str],
    parameters: Mapping[str, Any],
    pool: Pool,
) -> Result:
    """Do the work in the flow run that is under way (a deployment's), or else in one of its own.

    Raises BuildCancelledError when the run is cancelled in Prefect's UI.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect import flow
    from prefect import tags as tagged
    from prefect.client.schemas.objects import State
    from prefect.context import FlowRunContext
    from prefect.states import Cancelled, Failed
    from prefect.task_runners import ThreadPoolTaskRunner

    if (run := FlowRunContext.get()) and run.flow_run:
        _name_run(run.flow_run, run_name, tags)
        return work()
    results: list[Result] = []
    failures: list[Exception] = []

    @flow(
        name=name,
        flow_run_name=run_name,
        task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE),  # type: ignore[arg-type]
        validate_parameters=False,
    )
    def weave(**parameters: Any) -> Any:  # noqa: ARG001  # Prefect shows them with the run
        with logged(), _cancelling(pool) as asked:
            try:
                results.append(work())
            except Exception as error:  # noqa: BLE001  # raised again once the run has its state
                if asked.is_set():
                    return Cancelled(message="finished parts are kept")
                failures.append(error)
                return Failed(message=cause(error))
        return None

    with tagged(*tags):
        state: State[Any] = weave(**parameters, return_state=True)  # type: ignore[assignment]
    if failures:
        raise failures[0]
    if state.is_cancelled():
        raise BuildCancelledError(
            f"build {run_name} was cancelled in Prefect's UI; finished parts are kept, rerun the command to resume"
        )
    if not results:
        state.result()
    return results[0]


@contextmanager
def _cancelling(pool: Pool) -> Iterator[threading.Event]:
    """Close the pool when the run is asked to cancel; nobody else does so for a run without a deployment."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.exceptions import PrefectHTTPStatusError

    run = FlowRunContext.get()
    assert run
    assert run.flow_run
    identity, asked, ended = run.flow_run.id, threading.Event(), threading.Event()

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while not ended.wait(CANCEL_POLL_SECONDS):
                try:
                    state = client.read_flow_run(identity).state
                except (PrefectHTTPStatusError, OSError):
                    continue  # a server that is away for a while does not end the build
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


def _name_run(run: Any, name: str, tags: Sequence[str]) -> None:
    """Let the run of a deployment carry the build's name and tags."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=name, tags={*run.tags, *tags})

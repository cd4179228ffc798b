"""The stages of a build as tasks of its flow run.

Each task is submitted with the futures of the stages it reads, the one construction whose run graph
in Prefect's UI is exact. Prefect keeps no results: the store decides what is reused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from normloom.core.errors import BuildCancelledError, NormloomError, WaitingError
from normloom.core.machine.log_context import logged_as
from normloom.core.stage import Stage
from normloom.core.table import Manifest, TableRef
from normloom.prefect.flow_run import WAITING, current_task_run
from normloom.prefect.pages.lineage_page import Lineage, publish_stage
from normloom.prefect.task_runs import TaskRuns


class Make(Protocol):
    """Brings the table of a stage up to date."""

    def __call__(self, stage: Stage, inputs: Sequence[TableRef], sides: Sequence[TableRef]) -> tuple[Manifest, bool]:
        """Return the stage's table and whether it was there already."""
        ...


def import_engine() -> None:
    """Import what flows run on: a second, which may pass while a server starts."""
    import fastapi.encoders  # noqa: F401  # with which Prefect writes a flow's parameters
    import prefect.artifacts
    import prefect.flow_engine
    import prefect.task_engine  # noqa: F401  # imported early, used later


def submit_stages(
    runs: TaskRuns, stages: Sequence[Stage], make: Make, lineage: Lineage
) -> dict[str, tuple[Manifest, bool]]:
    """Make the stages as tasks of the flow run that is under way; return each table and whether it was there already.

    All of them are drawn in the run's graph from the start; those whose table is there come first, and are reported
    when they are over. Each task leaves the page of its table, unless there is nothing to make: then all pages are left
    at the build's end. Raises the error of the stage that failed first, which names the stage; WaitingError if none
    failed but some wait.
    """
    import prefect.artifacts  # noqa: F401  # here and not in the threads of the stages
    from prefect.context import TagsContext

    made: dict[str, tuple[Manifest, bool]] = {}
    there = _there(stages, lineage)
    futures: dict[str, Any] = {}
    with TagsContext(current_tags=set()):  # a task with tags needs the server, which limits them
        for stage in sorted(stages, key=lambda stage: stage.name not in there):
            work = _task(stage, make, made, lineage, leaves_page=len(there) < len(stages))
            reads = {
                "inputs": [futures[upstream.name] for upstream in stage.inputs if upstream.name in futures],
                "sides": [futures[upstream.name] for upstream in stage.side_inputs if upstream.name in futures],
            }
            futures[stage.name] = runs.submit(work, stage.name, reads, brief=stage.name in there)
        for future in futures.values():
            future.wait()
    if lineage.failed:
        raise _first(list(lineage.failed.values()))
    for future in futures.values():  # what fails outside of a stage
        future.result()
    return made


def _task(
    stage: Stage, make: Make, made: dict[str, tuple[Manifest, bool]], lineage: Lineage, *, leaves_page: bool
) -> Any:
    """Return the task that brings the table of a stage up to date and notes it in `made`."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.states import Completed, Failed

    @task(name=stage.name, task_run_name=stage.name, persist_result=False, cache_policy=NO_CACHE)
    def run(inputs: list[TableRef], sides: list[TableRef]) -> TableRef | State[TableRef]:
        try:
            with _failing(stage.name, lineage), logged_as(stage=stage.name):
                manifest, reused = made[stage.name] = make(stage, inputs, sides)
        except WaitingError as error:
            return Failed(name=WAITING, message=str(error))  # failed, so that what reads it does not start
        lineage.manifests[stage.name] = manifest
        if stage.table is None:
            lineage.tasks[stage.name] = current_task_run()
            if leaves_page:
                publish_stage(lineage, stage.name)
        if reused:
            return Completed(name="Reused", message=f"key {manifest.key} is published", data=manifest.ref)
        return manifest.ref

    return run


def _there(stages: Sequence[Stage], lineage: Lineage) -> set[str]:
    """Return the stages that neither make a table nor wait for one, as far as the plan tells."""
    there: set[str] = set()
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.name in lineage.ready and there.issuperset(one.name for one in stage.upstream if one.name in names):
            there.add(stage.name)
    return there


def _first(errors: Sequence[Exception]) -> Exception:
    """Return the error of the stage that failed first, or, if all only wait, one that says what for."""
    waiting = [error for error in errors if isinstance(error, WaitingError)]
    if len(waiting) < len(errors):
        return next(error for error in errors if not isinstance(error, WaitingError))
    return waiting[0] if len(waiting) == 1 else WaitingError("; ".join(map(str, waiting)))


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

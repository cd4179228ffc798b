"""Prefect task runs that are drawn under their names before they begin.

Prefect's own task runners make a task run when a thread takes it up: until then the run graph lacks it, and while it
waits for others it has a made-up name. Here the run is made, and reported to the server, when it is submitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

TASKS_AT_ONCE = 8  # threads that wait for actors or run stages without a model


class TaskRuns:
    """Runs tasks of the flow run that is under way in threads, in the order in which they are submitted."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def submit(self, task: Any, name: str, parameters: Mapping[str, Any], *, brief: bool = False) -> Any:
        """Submit a run of a task, and return its future; futures among the parameters are what it waits for.

        A `brief` run is reported when it is over.
        """
        from prefect.client.schemas.objects import TaskRun
        from prefect.futures import PrefectConcurrentFuture
        from prefect.task_engine import run_task_sync
        from prefect.utilities.asyncutils import run_coro_as_sync
        from prefect.utilities.engine import emit_task_run_state_change_event

        from normloom.prefect.brief_run import brief_run

        run: TaskRun | None = run_coro_as_sync(task.create_local_run(parameters=dict(parameters)))
        assert run
        assert run.state
        run.name = name
        work: Callable[[], Any] = partial(brief_run, task, run, parameters)
        if not brief:
            emit_task_run_state_change_event(run, initial_state=None, validated_state=run.state)
            work = partial(run_task_sync, task, task_run=run, parameters=dict(parameters), return_type="state")
        return PrefectConcurrentFuture(run.id, self._threads.submit(copy_context().run, work))


@contextmanager
def task_runs() -> Iterator[TaskRuns]:
    """Give what runs tasks; an error ends those that have not begun and waits for the others."""
    threads = ThreadPoolExecutor(TASKS_AT_ONCE, thread_name_prefix="stage")
    try:
        yield TaskRuns(threads)
    finally:
        threads.shutdown(cancel_futures=True)  # without an error there is none left

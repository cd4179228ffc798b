"""Task runs that are reported to Prefect's server once, when they are over.

A table that is there takes milliseconds to look up. The server takes longer than that to record each state of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Running
from prefect.task_engine import SyncTaskRunEngine


class _BriefRun(SyncTaskRunEngine[..., Any]):
    def begin_run(self) -> None:
        """Begin without reporting it: the event at the end carries the start time."""
        run, flow = self.task_run, FlowRunContext.get()
        assert run
        running: State[Any] = Running()
        run.state = running
        run.start_time = running.timestamp  # type: ignore[assignment]  # Prefect's own type of the same time
        run.run_count = 1
        if flow and flow.flow_run:
            run.flow_run_run_count = flow.flow_run.run_count


def brief_run(task: Any, run: TaskRun, parameters: Mapping[str, Any]) -> State[Any]:
    """Run a task, which has no retries, and return the state it ends in."""
    engine = _BriefRun(task=task, parameters=dict(parameters), task_run=run)
    with engine.start():
        if engine.is_running():  # not so if one of its parameters failed
            with engine.run_context(), engine.transaction_context() as transaction:
                engine.call_task_fn(transaction)
    return engine.state

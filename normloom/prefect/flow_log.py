"""What this process logs while it builds, in the log of its flow run in Prefect's UI.

Prefect sends what its own loggers log. Ours, and Python's warnings, are sent with them: under the task run of the
stage that is at work, or else under the flow run. Actors have their own way there (`normloom.workers.actors.run_log`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from normloom.core.progress import PROGRESS
from normloom.workers.actors.run_log import LOGGERS

_TASK_RUNS = "prefect.task_runs"
_NOT_READY = "Finished in state NotReady"


@contextmanager
def logged() -> Iterator[None]:
    """Send what is logged meanwhile (from INFO, warnings too) to the log of the flow run that is under way.

    Inside another of these contexts this does nothing.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if not (context and context.flow_run) or any(isinstance(each, _RunLogHandler) for each in _ours()[0].handlers):
        yield
        return
    handler = _RunLogHandler()
    quieter = _NotReadyIsNoError()
    levels = {logger: logger.level for logger in _ours()}
    logging.captureWarnings(capture=True)
    for logger in levels:
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        logger.addHandler(handler)
    logging.getLogger(_TASK_RUNS).addFilter(quieter)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        logging.getLogger(_TASK_RUNS).removeFilter(quieter)
        for logger, level in levels.items():
            logger.removeHandler(handler)
            logger.setLevel(level)


def _ours() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in LOGGERS]


class _RunLogHandler(logging.Handler):
    """Sends what the run's log does not have yet; what threads outside of any run log is the flow run's.

    Records are sent in the run's context: outside it Prefect knows no server, and would start one of its own.
    """

    def __init__(self) -> None:
        from prefect.logging.handlers import APILogHandler

        super().__init__(logging.INFO)
        self._run = copy_context()
        self._sending = APILogHandler()

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.context import FlowRunContext, TaskRunContext

        if record.name == PROGRESS:
            return
        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            self._run.copy().run(self._sending.handle, record)
        else:
            self._sending.handle(record)


class _NotReadyIsNoError(logging.Filter):
    """Keeps the one error that is the cause in sight: Prefect logs an error for each stage that waited for it, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(_NOT_READY):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            record.msg = "not made: a stage that it reads was not made"
        return True

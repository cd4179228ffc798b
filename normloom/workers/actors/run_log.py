"""What actors log, in the log of their task run in Prefect's UI.

Prefect collects what is logged in its own process only. An actor gets the place of its task run's log
and sends there what it logs while it works for it: in the background, dropped if the server does
not answer, never to the console.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from normloom.workers.actors.log_server import LogClient, LogServer

QUEUED_RECORDS = 10_000  # more are dropped: a server that hangs must not fill the memory
BATCH_RECORDS = 200
BATCH_SECONDS = 1.0
LONGEST_MESSAGE = 20_000  # characters; a traceback may quote a whole row
DRAIN_SECONDS = 5.0
LOGGERS = ("normloom", "py.warnings")


@dataclass(frozen=True)
class RunLog:
    """The log of one task run, small enough to travel with a part; `name` is what its lines begin with."""

    name: str
    flow_run_id: str
    task_run_id: str
    server: LogServer


def current_run_log() -> RunLog | None:
    """Return the log of the task run that this code is part of, None outside of one."""
    if "prefect" not in sys.modules:  # then there is no run, and importing it takes a second
        return None
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    if context is None:
        return None
    run = context.task_run
    return RunLog(run.name, str(run.flow_run_id), str(run.id), LogServer.current())


@contextmanager
def sending(run_log: RunLog | None) -> Iterator[None]:
    """Send what an actor logs meanwhile (from INFO, warnings too) to the log of a task run; None does nothing.

    An actor works for one task run at a time: threads that serve several of its parts share the log.
    """
    if run_log is None:
        yield
        return
    sender = _sender_with(run_log.server)
    sender.runs.append(run_log)
    try:
        yield
    finally:
        sender.runs.remove(run_log)


def drain(seconds: float = DRAIN_SECONDS) -> None:
    """Send what is still queued, for at most this many seconds; call it before an actor ends."""
    global _sender  # one for the process
    with _changing:
        sender, _sender = _sender, None
    if sender:
        sender.detach()
        sender.finish(seconds)


class _Sender(logging.Handler):
    """Queues records with the run they belong to; a thread of its own sends them."""

    def __init__(self, server: LogServer) -> None:
        super().__init__(logging.INFO)
        self.server = server
        self.runs: list[RunLog] = []
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUED_RECORDS)
        self._last = threading.Event()
        import httpx  # noqa: F401  # here, so that no concurrent work sees it half imported

        self._thread = threading.Thread(target=self._send, name="run-log", daemon=True)
        self._thread.start()

    def attach(self) -> None:
        """Listen to our loggers and to Python's warnings."""
        logging.captureWarnings(capture=True)
        for logger in map(logging.getLogger, LOGGERS):
            logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
            logger.addHandler(self)

    def detach(self) -> None:
        """Stop listening."""
        logging.captureWarnings(capture=False)
        for logger in map(logging.getLogger, LOGGERS):
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; what the sending itself gives rise to is left out, for it would never end."""
        if not self.runs or record.thread == self._thread.ident:
            return
        try:
            run = self.runs[-1]
            entry = {
                "name": record.name,
                "level": record.levelno,
                "message": f"{run.name}: {self.format(record).strip()}"[:LONGEST_MESSAGE],
                "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
                "flow_run_id": run.flow_run_id,
                "task_run_id": run.task_run_id,
            }
            with suppress(queue.Full):
                self._queue.put_nowait(entry)
        except Exception:  # noqa: BLE001  # logging's own way with records that cannot be formatted
            self.handleError(record)

    def finish(self, seconds: float) -> None:
        """Wait until all is sent, but at most this many seconds."""
        self._last.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)
            self._thread.join(seconds)

    def _send(self) -> None:
        batches = self._batches()
        first = next(batches, [])
        if not first:
            return
        # A log that cannot be delivered is no reason to stop the work
        with suppress(Exception), LogClient(self.server, self._last) as client:
            for batch in chain([first], batches):
                with suppress(Exception):
                    client.send(batch)

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield what is queued, what comes within a moment together, until the end."""
        ended = False
        while not ended:
            entries = [self._queue.get()]
            until = time.monotonic() + BATCH_SECONDS
            with suppress(queue.Empty):
                while entries[-1] is not None and len(entries) < BATCH_RECORDS:
                    entries.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            ended = entries[-1] is None
            if batch := [entry for entry in entries if entry is not None]:
                yield batch


_changing = threading.Lock()
_sender: _Sender | None = None


def _sender_with(server: LogServer) -> _Sender:
    """Return the process's sender, a new one if the server is another."""
    global _sender  # noqa: PLW0603  # one for the process
    with _changing:
        if _sender is None or _sender.server != server:
            if _sender:
                _sender.detach()
                _sender.finish(0)
            _sender = _Sender(server)
            _sender.attach()
        return _sender

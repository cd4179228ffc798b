"""Ctrl-C: free the actors at once, give Prefect a moment to record the state, then leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rich.console import Console

from normloom.pool import Pool

INTERRUPTED = 130
GRACE_SECONDS = 4.0  # the server that Prefect starts beside a build gets Ctrl-C too and may not answer any more
MESSAGE = "interrupted; finished parts are kept, the same command goes on from here"


@contextmanager
def stoppable(pool: Pool, console: Console) -> Iterator[None]:
    """Let Ctrl-C end what runs inside within seconds; finished parts are on disk whenever it comes."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  # the signature of a signal handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=pool.close, daemon=True).start()
        leaving = threading.Timer(GRACE_SECONDS, _leave, [console])
        leaving.daemon = True
        leaving.start()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _leave(console: Console) -> NoReturn:
    console.show_cursor()
    console.print(f"\n{MESSAGE}")
    os._exit(INTERRUPTED)

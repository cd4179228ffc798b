"""Ctrl-C and SIGTERM: free the actors at once, report the run's end to Prefect's server, then exit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from normloom.workers.pool import Pool

GRACE_SECONDS = 4.0  # the server that Prefect starts for a build gets Ctrl-C too and may not answer any more
MESSAGE = "interrupted; finished parts are kept, rerun the command to resume"
_SHELL = 128  # what shells add to the number of a signal


class InterruptedBuildError(KeyboardInterrupt):
    """A signal asked the build to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = _SHELL + number


@contextmanager
def interruptible(pool: Pool, console: Console) -> Iterator[None]:  # noqa: ARG001  # called as `stoppable` is
    """Let Ctrl-C raise KeyboardInterrupt in the body, and free the actors: for a process that lives on.

    In another thread than the main one, to which Python gives signals, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  # the signature of a signal handler
        signal.signal(signal.SIGINT, previous)  # a second Ctrl-C ends what the first one waits for
        threading.Thread(target=pool.close, daemon=True).start()
        raise InterruptedBuildError(number)

    previous = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def stoppable(pool: Pool, console: Console) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the body, and soon the process; finished parts are always on disk.

    In a flow run of a deployment SIGTERM is left to Prefect, which cancels runs by it.
    """
    from normloom.prefect.flow_run import under_way  # imported here, for every command imports this module

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  # the signature of a signal handler
        for ignored in previous:
            signal.signal(ignored, signal.SIG_IGN)
        threading.Thread(target=pool.close, daemon=True).start()
        here = copy_context()  # Prefect's settings, above all which server, are the context's
        leaving = threading.Timer(GRACE_SECONDS, here.run, [_leave, console, number])
        leaving.daemon = True
        leaving.start()
        raise InterruptedBuildError(number)

    numbers = [signal.SIGINT] if under_way() else [signal.SIGINT, signal.SIGTERM]
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def leaving_quietly(console: Console) -> Iterator[None]:
    """Turn an interrupt into one line and the exit code that shells expect: 130 for Ctrl-C, 143 for SIGTERM."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        console.print(MESSAGE)
        code = stopped.exit_code if isinstance(stopped, InterruptedBuildError) else _SHELL + signal.SIGINT
        raise SystemExit(int(code)) from None


def terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  # the signature of a signal handler
    """End the process cleanly, as a handler of SIGTERM: with its child processes and files."""
    raise SystemExit(_SHELL + number)


def _leave(console: Console, number: int) -> NoReturn:
    from normloom.prefect.run_marks import abandon

    console.show_cursor()
    console.print(f"\n{MESSAGE}")
    try:
        abandon(f"interrupted by {signal.Signals(number).name}")
    finally:  # whatever comes of it: the next build tells the server
        os._exit(_SHELL + number)

"""The warm process: it imports the libraries that flow runs need, and makes a copy of itself for each run.

    python -m normloom.prefect.warm.forks SOCKET

A copy is what `python -m prefect.engine` is after its imports: the same code, environment, folder and open files. If
it would not be, because a file that was read has changed or the environment is another, the process begins from
nothing before it makes one. It forks only while it has no other thread, so that no lock is held in the copy. It ends
when its input closes, as it does when `serve` ends; copies end with it, and with whoever asked for them.

Polars starts threads when it is imported, so it is left to the copies, and with it Normloom, whose modules and systems
are always today's.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from normloom.core.machine.collector import collect_rarely, spare_last_look
from normloom.prefect.warm.ask import AGAIN, REFUSED, SIZE, STARTED
from normloom.prefect.warm.files import ReadFiles

LIBRARIES = (
    "blake3",
    "fastapi.encoders",
    "numpy.typing",
    "openlineage.client.event_v2",
    "openlineage.client.facet_v2",
    "openlineage.client.serde",
    "openlineage.client.transport.noop",
    "prefect.artifacts",
    "prefect.flow_engine",
    "prefect.task_engine",
    "psutil",
    "pydantic.v1",
    "pythonjsonlogger.json",
    "rich.panel",
    "rich.progress",
    "statistics",
    "symtable",
    "typer",
    "yaml",
)
OF_A_RUN = "PREFECT__"  # with which begin the variables that differ from run to run: they are read when it is at work
REQUEST_SECONDS = 10.0
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Request:
    """What a run is to have: its folder, environment, and three open files, its input and outputs."""

    folder: str
    environment: Mapping[str, str]
    files: tuple[int, ...]

    @classmethod
    def read(cls, connection: socket.socket) -> Request:
        """Read what `ask` sends; raises OSError."""
        size, files, _, _ = socket.recv_fds(connection, SIZE, 3)
        left = int.from_bytes(size, "big")
        message = b""
        while left > len(message):
            if not (some := connection.recv(left - len(message))):
                raise ConnectionError("the request ends early")
            message += some
        folder, *variables = map(os.fsdecode, message.split(b"\0"))
        environment = dict(variable.split("=", 1) for variable in variables)
        return cls(folder, environment, tuple(files))

    @property
    def lasting(self) -> dict[str, str]:
        """The environment without what differs from run to run."""
        return {name: value for name, value in self.environment.items() if not name.startswith(OF_A_RUN)}

    @property
    def own(self) -> dict[str, str]:
        """The rest of the environment."""
        return {name: value for name, value in self.environment.items() if name.startswith(OF_A_RUN)}


@dataclass
class Copy:
    """A copy at work, and the connection of the process that waits for it."""

    process: int
    handle: int  # a pidfd: unlike the number of the process it is never another's
    connection: socket.socket


@dataclass
class Forks:
    """Answers requests until the input closes."""

    listener: socket.socket
    environment: Mapping[str, str]
    read: ReadFiles
    folder: str = field(default_factory=os.getcwd)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _copies: dict[int, Copy] = field(default_factory=dict)

    def next_copy(self) -> Request:
        """Return, in a copy of this process, what it is to run; this process never returns, it ends."""
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._end)
        self._selector.register(self.listener, selectors.EVENT_READ, self._accept)
        while True:
            for ready, _ in self._selector.select():
                if isinstance(request := ready.data(), Request):
                    return request

    def _end(self) -> NoReturn:
        raise SystemExit

    def _accept(self) -> Request | None:
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_SECONDS)
        try:
            if not _is_ours(connection):
                connection.close()
                return None
            request = Request.read(connection)
            if answer := self._refusal(request):
                connection.sendall(answer)
        except OSError:
            connection.close()
            return None
        if not answer:
            return self._fork(request, connection)
        connection.close()
        for descriptor in request.files:
            os.close(descriptor)
        if answer == AGAIN:
            self._renew(request)
        return None

    def _refusal(self, request: Request) -> bytes | None:
        """Return the answer to a request that a copy cannot serve, None to one that it can."""
        if (threads := _threads()) > 1:
            return REFUSED + f"the warm process has {threads} threads".encode()
        same = (request.lasting, request.folder) == (self.environment, self.folder)
        changed = self.read.changed() if same else "the environment"
        if changed and self._copies:
            return REFUSED + f"{changed} has changed, and another run is at work".encode()
        return AGAIN if changed else None

    def _fork(self, request: Request, connection: socket.socket) -> Request | None:
        parent = os.getpid()
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        process = os.fork()
        if process == 0:
            self._become(request, connection, parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            return request
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for descriptor in request.files:
            os.close(descriptor)
        copy = Copy(process, os.pidfd_open(process), connection)
        self._copies[process] = copy
        self._selector.register(copy.handle, selectors.EVENT_READ, lambda: self._reap(copy))
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hand_on(copy))
        _tell(connection, STARTED)
        return None

    def _become(self, request: Request, connection: socket.socket, parent: int) -> None:
        """Make this copy what a new process would be."""
        _end_with(parent)
        self._selector.close()
        self.listener.close()
        connection.close()
        for other in self._copies.values():
            other.connection.close()
            os.close(other.handle)
        for descriptor, given in enumerate(request.files):
            os.dup2(given, descriptor)
            os.close(given)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(request.own)

    def _hand_on(self, copy: Copy) -> None:
        """Send a copy the signals that the process waiting for it got; without that process it is killed."""
        if copy.process not in self._copies:  # pragma: no cover  # it has ended just now
            return
        numbers = b""
        with suppress(OSError):
            numbers = copy.connection.recv(16)
        for number in numbers or [signal.SIGKILL]:
            signal.pidfd_send_signal(copy.handle, number)
        if not numbers:
            self._selector.unregister(copy.connection)

    def _reap(self, copy: Copy) -> None:
        _, status = os.waitpid(copy.process, 0)
        _tell(copy.connection, os.waitstatus_to_exitcode(status).to_bytes(SIZE, "big", signed=True))
        del self._copies[copy.process]
        self._selector.unregister(copy.handle)
        os.close(copy.handle)
        if copy.connection in self._selector.get_map():
            self._selector.unregister(copy.connection)
        copy.connection.close()

    def _renew(self, request: Request) -> NoReturn:
        """Begin from nothing, as the same process, with the request's environment."""
        self.listener.set_inheritable(True)
        os.chdir(request.folder)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], request.lasting)  # noqa: S606


def _is_ours(connection: socket.socket) -> bool:
    """Return whether the process at the other end is this user's: it is about to have code run."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.getuid())


def _tell(connection: socket.socket, message: bytes) -> None:
    try:
        connection.sendall(message)
    except OSError:
        return  # it is gone, which the selector tells next


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _end_threads() -> None:
    """Fork for nothing, since libraries such as OpenBLAS end their threads before a fork."""
    process = os.fork()
    if process == 0:
        os._exit(0)  # pragma: no cover  # a copy is measured only once it runs something
    os.waitpid(process, 0)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    _libc().prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # pragma: no cover  # it has ended already
        os._exit(1)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _configuration() -> list[Path]:
    """Return the files in which Prefect looks for settings when it is imported."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    here = [Path(name).absolute() for name in (".env", "prefect.toml", "pyproject.toml")]
    return [settings.profiles_path, settings.logging.config_path, *here]


def main(descriptor: int) -> None:
    """Import libraries and answer requests; in a copy, run the flow run that it was made for."""
    collect_rarely()
    started, environment = time.time_ns(), dict(os.environ)  # which imports add to
    for number in _SIGNALS:  # a terminal's Ctrl-C and a service's end are for the runs and for serve
        signal.signal(number, signal.SIG_IGN)
    listener = socket.socket(fileno=descriptor)
    for library in LIBRARIES:
        importlib.import_module(library)
    _end_threads()
    gc.collect()
    gc.freeze()  # for the copies: what is not looked at stays shared
    atexit.register(spare_last_look)
    Forks(listener, environment, ReadFiles.since(started, _configuration())).next_copy()
    sys.argv = [""]
    warnings.filterwarnings("ignore", ".*found in sys.modules after import", RuntimeWarning, "runpy")
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

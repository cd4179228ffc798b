"""Ray's processes on this machine, or the way to a cluster: started so that the process stays its own."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from time import monotonic as clock
from typing import Any

from normloom.core.errors import ModelError
from normloom.workers import ray_agent

log = logging.getLogger("normloom.pool")

RAY_STARTS = 5  # Ray gives its processes 30 s to come up; a busy machine may need more
SAY_SECONDS = 20.0  # between lines that Ray is not up yet
SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes that the kernel takes
SESSION = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.10"
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # tried in order, for a private folder each
_LASTING = {None, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
_SIGACTION_BYTES = 512  # no system's struct sigaction is larger; it is kept and put back unread


@dataclass(frozen=True)
class RunningRay:
    """A Ray that this process started, or its connection to a cluster, with the folder made for it, if any."""

    folder: Path | None
    ended: threading.Event

    def end(self) -> None:
        """Shut down Ray, or disconnect from the cluster."""
        import ray

        ray.shutdown()
        self.ended.set()
        _remove(self.folder)


def start_ray(*, address: str | None, processors: float, require_open: Callable[[], None]) -> RunningRay:
    """Start Ray here, or connect to the cluster at `address`.

    A start that was too slow is tried again; `require_open` raises between tries if nobody waits any more. Raises
    ModelError if Ray does not start.
    """
    started, ended = Future[Path | None](), threading.Event()

    def keep() -> None:  # the kernel kills Ray's processes when the thread that started them ends
        try:
            started.set_result(_started(address, processors, require_open))
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            started.set_exception(error)
        else:
            ended.wait()

    threading.Thread(target=copy_context().run, args=(keep,), name="ray", daemon=True).start()
    return RunningRay(started.result(), ended)


def _started(address: str | None, processors: float, require_open: Callable[[], None]) -> Path | None:
    """Start Ray or connect; return the folder that was made for it, if one was."""
    import ray

    _start_only_when_told()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # by default one process for each processor
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # a busy laptop takes longer than Ray's 30 s
    folder = None if address else _short_folder()
    local = {"address": "local", "num_cpus": processors, "include_dashboard": False}
    where = {"address": address} if address else {**local, **({"_temp_dir": str(folder)} if folder else {})}
    starts, begun = 1 if address else RAY_STARTS, clock()
    for attempt in range(1, starts + 1):
        try:
            with _handlers_kept(), _patiently(), nullcontext() if address else alone():
                ray.init(**where, log_to_driver=False, logging_level="error")
        except Exception as error:  # Ray raises one or another when a process of its own is late or dies
            ray.shutdown()
            require_open()
            if attempt == starts or not may_pass(error):
                _remove(folder)
                raise ModelError(f"Ray does not start at {where['address']!r}: {error}") from error
            log.warning("start %d of %d of Ray failed (%s); trying again", attempt, starts, error)
        else:
            log.info("%s after %.1f s", f"connected to Ray at {address}" if address else "Ray is up", clock() - begun)
            return folder
    raise AssertionError("the last start returns or raises")


def may_pass(error: Exception) -> bool:
    """Return whether a start that failed so may succeed when it is tried again.

    Wrong arguments, paths and rights stay wrong, and a full disk full; what is late or died may come.
    """
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError):
        return error.errno not in _LASTING  # Ray itself raises OSError without a number, for a path that is too long
    return not isinstance(error, ValueError | TypeError | ImportError)


def _remove(folder: Path | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path | None:
    """Return a folder of its own for Ray if its sockets do not fit below the usual one, as on clusters with long names.

    Raises ModelError if none can be made.
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # as Ray chooses
    if len(f"{usual}{SESSION}".encode()) <= SOCKET_PATH:
        return None
    for place in SHORT_FOLDERS:
        try:
            return Path(tempfile.mkdtemp(prefix="normloom-", dir=place))
        except OSError:
            continue
    raise ModelError(
        f"the temporary directory {usual} is too long for Ray's sockets ({SOCKET_PATH} bytes with all that comes below "
        f"it) and none of {', '.join(SHORT_FOLDERS)} can be written: set RAY_TMPDIR to a directory with a short path"
    )


def _start_only_when_told() -> None:
    """Keep Ray from starting by itself: asked by a stage that outlives its build's Ray, it would start another."""
    with suppress(ImportError):  # Ray reads its variable for this once, maybe before
        from ray._private import auto_init_hook

        auto_init_hook.enable_auto_connect = False


@contextmanager
def alone() -> Iterator[None]:
    """Start a local Ray without its autoscaler, its log monitor and its dashboard, and with stand-ins for its agents.

    There are no machines to add, and nobody reads what the monitor prints. `ray start` has options for these two,
    `ray.init` has none. Without a dashboard Ray still starts the dashboard's process to report usage, which is off, and
    waits for it and for two agents that take a second each to import.
    """
    from ray._private import parameter, ray_constants, services

    replaced: dict[tuple[Any, str], Callable[[Any], Any]] = {
        (parameter, "RayParams"): lambda whole: partial(_without_monitors, whole),
        (ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV"): lambda _: False,  # `uv run` would copy the working directory
        (services, "start_api_server"): lambda _: lambda *_, **__: ("", None),  # no address, no process
        (services, "_build_python_executable_command_memory_profileable"): lambda rays: partial(_interpreter, rays),
    }
    with ExitStack() as stack:
        for (module, name), ours in replaced.items():
            if hasattr(module, name):  # private: another version may lack it
                rays = getattr(module, name)
                stack.callback(setattr, module, name, rays)
                setattr(module, name, ours(rays))
        yield


def _without_monitors(whole: Callable[..., Any], /, *given: Any, **options: Any) -> Any:
    fewer = {"no_monitor": True, "include_log_monitor": False}
    known = signature(whole).parameters
    return whole(*given, **{name: value for name, value in fewer.items() if name in known} | options)


def _interpreter(rays: Callable[..., list[str]], /, component: str, *given: Any, **options: Any) -> list[str]:
    """Return the interpreter command for one of Ray's own programs, for its agents that of a stand-in."""
    if component in ray_agent.AGENTS:
        return [sys.executable, "-I", "-S", str(Path(ray_agent.__file__)), component]
    return rays(component, *given, **options)


@contextmanager
def _patiently() -> Iterator[None]:
    """Log now and then that Ray is still starting: it may take minutes before it gives up."""
    here, up, begun = copy_context(), threading.Event(), clock()  # the context says whose log it is

    def say() -> None:
        while not up.wait(SAY_SECONDS):
            log.warning("Ray is not up yet after %.0f s", clock() - begun)

    saying = threading.Thread(target=here.run, args=(say,), name="ray-start", daemon=True)
    saying.start()
    try:
        yield
    finally:
        up.set()
        saying.join()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep what SIGTERM does: Ray's core puts a handler there that prints a native stack and ends the process.

    Python sets handlers in the main thread only, and Ray starts in another, so the kernel's own setting is kept.
    """
    libc = ctypes.CDLL(None)
    kept = ctypes.create_string_buffer(_SIGACTION_BYTES)
    libc.sigaction(int(signal.SIGTERM), None, kept)
    try:
        yield
    finally:
        libc.sigaction(int(signal.SIGTERM), kept, None)

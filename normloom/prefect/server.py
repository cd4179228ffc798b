"""A Prefect server as a child process that ends when its parent does, however the parent ends.

The server that Prefect itself starts for a flow outlives a parent that is killed. This one watches the
pipe to its parent, has a session of its own (Ctrl-C in a terminal is not meant for it) and is handed a
bound socket, so that no other process can take its port in between.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import certifi
import psutil

from normloom.core.errors import NormloomError, UsageError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.collector import collect_rarely
from normloom.core.machine.once import made_once
from normloom.prefect.names import HEARTBEAT_SECONDS, SERVER_PASSWORD

SERVED = ".serve.json"
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
STARTUP_SECONDS = 180.0  # a first start migrates the database: 15 seconds of one core, more on a busy laptop
GRACE_SECONDS = 10.0
DEATH_CHECK_SECONDS = 1.0
LOG_LINES = 15
_GO = b"s"  # what a server that has imported its libraries waits for
# What acts on schedules, deployments and automations: they are in the same database, and not this server's to act on.
SHARED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)

# Only servers that use blocks register them; no memo may say that this server has.
NO_BLOCKS = {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false", "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false"}

VACUUM = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"  # runs that ended 90 days ago go, with logs and pages


class ServerError(NormloomError):
    """The Prefect server does not start."""


@contextmanager
def prefect_server(
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    private: bool = True,
    log: Path | None = None,
    timeout: float = STARTUP_SECONDS,
    died: Callable[[], object] | None = None,
) -> Iterator[str]:
    """Run a Prefect server and yield the URL of its API once it answers.

    `died` is called, in a thread, if the server ends before it is stopped.
    Without a port one that is free is taken. A private server, for one build, leaves schedules and automations
    alone. The database is Prefect's own choice: SQLite in PREFECT_HOME unless PREFECT_API_DATABASE_CONNECTION_URL
    says otherwise. Raises UsageError when the port is taken and ServerError, with the end of its log, when it does
    not come up.
    """
    with starting_server(host=host, port=port, private=private, log=log) as server:
        server.serve(timeout)
        with _watched(server.process, died):
            yield server.url


@dataclass(frozen=True, kw_only=True)
class StartingServer:
    """A server that imports its libraries, which takes seconds on a core of its own, and then waits for `serve`."""

    url: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def serve(self, timeout: float = STARTUP_SECONDS) -> None:
        """Let it touch its database and serve; returns once it answers. Raises ServerError."""
        pipe = self.process.stdin
        assert pipe
        with suppress(BrokenPipeError):  # it has ended, which is told next
            os.write(pipe.fileno(), _GO)
        _await(self.process, self.url, self.output, timeout)

    def stop(self) -> None:
        """Stop it; what Prefect still holds back in this process is sent before."""
        if self.process.poll() is None:
            _drain()
        _stop(self.process)


@contextmanager
def starting_server(
    *, host: str = "127.0.0.1", port: int | None = None, private: bool = True, log: Path | None = None
) -> Iterator[StartingServer]:
    """Start a server as `prefect_server` does and yield it at once; what it is not told to serve it does not touch."""
    with _log_file(log) as output:
        process, url = _start(host, port, output, private=private)
        server = StartingServer(url=url, process=process, output=output)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _watched(process: subprocess.Popen[bytes], died: Callable[[], object] | None) -> Iterator[None]:
    wanted = threading.Event()

    def watch() -> None:
        while not wanted.wait(DEATH_CHECK_SECONDS):
            if process.poll() is not None:
                if died:
                    died()
                return

    watcher = threading.Thread(target=watch, name="server-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        wanted.set()
        watcher.join()


@contextmanager
def using_server(url: str) -> Iterator[None]:
    """Let Prefect in this process, and in those it starts, talk to a server, with the password that server asks for.

    Events from before go to the server of that time: Prefect's sender of events keeps the one it began with.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_API_URL,
        temporary_settings,
    )

    chosen = {PREFECT_API_URL: url}
    if urlsplit(url).scheme == "http":
        with suppress(OSError):  # clients start more slowly if the cache cannot be written
            chosen[PREFECT_API_SSL_CERT_FILE] = str(made_once(cache_dir() / "one-certificate.pem", _write_certificate))
    if password := os.environ.get(SERVER_PASSWORD):
        chosen[PREFECT_API_AUTH_STRING] = os.environ.get("PREFECT_API_AUTH_STRING", password)
    before = {setting.name: os.environ.get(setting.name) for setting in chosen}
    _drain()
    os.environ |= {setting.name: value for setting, value in chosen.items()}
    try:
        with temporary_settings(chosen):
            yield
    finally:
        _drain()
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def _write_certificate(path: Path) -> None:
    """Write a single certificate: each of Prefect's clients reads the file, 20 ms for all, even without TLS."""
    pem = Path(certifi.where()).read_text(encoding="utf-8")
    last = "-----END CERTIFICATE-----\n"
    path.write_text(pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(last) + len(last)], encoding="utf-8")


@contextmanager
def sending_heartbeats() -> Iterator[None]:
    """Let runs of this process send heartbeats as often as the automation expects, or as often as the environment says.

    The environment alone is not enough: Prefect may have read it already, as in a notebook that imports it.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY as FREQUENCY
    from prefect.settings import temporary_settings

    seconds = int(os.environ.setdefault(FREQUENCY.name, HEARTBEAT_SECONDS))
    if FREQUENCY.value() == seconds:  # all settings would be read again, which takes 0.1 s
        yield
        return
    with temporary_settings({FREQUENCY: seconds}):
        yield


def reachable(url: str, *, timeout: float = 2.0) -> bool:
    """Return whether a Prefect API answers at a URL such as http://127.0.0.1:4200/api."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False


@contextmanager
def announced(store: Path, url: str) -> Iterator[None]:
    """Let builds of a store find the server that serves it."""
    path = store / SERVED
    path.parent.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    temporary = path.with_name(f"{SERVED}.{os.getpid()}")
    temporary.write_text(json.dumps({"pid": os.getpid(), "api": url, "started": started}) + "\n", encoding="utf-8")
    temporary.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def serving(store: Path) -> str | None:
    """Return the URL of the API of the server that serves a store, None if none does."""
    try:
        found = json.loads((store / SERVED).read_text(encoding="utf-8"))
        process, url = int(found["pid"]), str(found["api"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if psutil.pid_exists(process) and reachable(url) else None


def _start(host: str, port: int | None, output: IO[bytes], *, private: bool) -> tuple[subprocess.Popen[bytes], str]:
    with _bound(host, port) as listening:
        taken = listening.getsockname()[1]
        url = f"http://{_local(host)}:{taken}/api"
        process = subprocess.Popen(  # noqa: S603  # this module, with two numbers
            [sys.executable, "-m", "normloom.prefect.server", str(listening.fileno()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[listening.fileno()],
            start_new_session=True,
            env={**os.environ, **_settings(host, taken, url, private=private)},
        )
    return process, url


def _bound(host: str, port: int | None) -> socket.socket:
    """Return a socket bound to the address; nothing can connect before the server listens on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise UsageError(f"host {host!r} is not an address of this machine: {error.strerror}") from error
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise UsageError(f"port {port} on {host} cannot be used: {error.strerror}; give another port") from error
    return listening


def _local(host: str) -> str:
    """Return the host as programs on this machine reach it."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _settings(host: str, port: int, url: str, *, private: bool) -> dict[str, str]:
    services = (
        {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in SHARED_SERVICES} | NO_BLOCKS
        if private
        else {VACUUM: os.environ.get(VACUUM, "events,flow_runs")}
    )
    return {
        **services,
        CONSOLE_LEVEL: "NOTSET",  # a build silences its own console, and the server's tells why it does not start
        "DO_NOT_TRACK": "1",
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",  # its queue's store would check types: 0.7 s at start
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # In memory, as by default, the slot of a run that a server's end interrupts would never be given back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_UI_API_URL": "/api",  # relative: right under every name and port that a browser reaches it by
    }


def _await(process: subprocess.Popen[bytes], url: str, output: IO[bytes], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not reachable(url):
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended with code {process.returncode} at its start:\n{_tail(output)}")
        if time.monotonic() > deadline:
            raise ServerError(f"the Prefect server did not answer within {timeout:g} seconds:\n{_tail(output)}")
        time.sleep(0.05)


def _drain() -> None:
    """Send what Prefect still holds back in this process: logs and the events that record task runs."""
    for module, worker in (("prefect.events.worker", "EventsWorker"), ("prefect.logging.handlers", "APILogWorker")):
        if module in sys.modules:
            drain = getattr(sys.modules[module], worker).drain_all
            with ThreadPoolExecutor(1) as thread:  # in this one a notebook may run a loop, and it would not wait
                thread.submit(drain, timeout=GRACE_SECONDS).result()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


@contextmanager
def _log_file(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        with tempfile.TemporaryFile() as output:
            yield output
    else:
        with path.open("w+b") as output:
            yield output


def _tail(output: IO[bytes]) -> str:
    output.seek(0)
    return "\n".join(output.read().decode(errors="replace").splitlines()[-LOG_LINES:])


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: its end of the pipe closed, or another process took its place."""
    while os.getppid() == parent and not select.select([sys.stdin], [], [], 1.0)[0]:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def main(descriptor: int, parent: int) -> None:
    """Import, and once the parent says so serve on a bound socket until stopped or until the parent is gone."""
    collect_rarely()
    import uvicorn
    from prefect.server.api.server import create_app

    import normloom.prefect.notifications.email_block  # noqa: F401  # the server must know the blocks it acts with

    if os.read(sys.stdin.fileno(), 1) != _GO:
        return
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    config = uvicorn.Config(create_app, factory=True, log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

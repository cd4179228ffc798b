"""Look after a store while nobody builds: serve its figures, tell the Prefect server of releases that get stale, and
let builds that waited for answers continue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path

from normloom.core.errors import StoreError, UsageError
from normloom.core.rows.text import counted
from normloom.history.freshness import releases
from normloom.prefect.notifications.answered import go_on
from normloom.prefect.notifications.notices import tell
from normloom.store.files import write_file
from normloom.store.layout import BUILDS
from normloom.store.store import Store

log = logging.getLogger("normloom.watch")

SECONDS = 60.0  # between two looks
HOST = "127.0.0.1"
_TOLD = ".stale-told"  # the build that last confirmed the release when it was reported stale


def look(store: Store, now: datetime) -> list[str]:
    """Tell of each release that got stale, once, and return their systems."""
    told = []
    for release in releases(store):
        mark = store.root / release.system / BUILDS / _TOLD
        why = release.stale(now)
        if why and _read(mark) != release.build:
            tell(
                "release.stale",
                system=release.system,
                stage=release.stage,
                build=release.build,
                subject=f"{release.system}: the release is stale",
                message=f"{release.system} ({counted(release.rows)}): {why}",
            )
            write_file(mark, release.build.encode())
            told.append(release.system)
    return told


@contextmanager
def watching(root: Path, *, metrics_port: int | None = None, host: str = HOST) -> Iterator[None]:
    """Look after a store in threads; figures are at http://HOST:PORT/metrics. Raises UsageError if the port is taken.

    To be entered where the Prefect server to tell is the one in use.
    """
    store, ended = Store(root), threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                look(store, datetime.now(UTC))
                go_on(store)
            except (StoreError, OSError) as error:  # a damaged lock, a full disk: the next look may do
                log.warning("cannot watch %s: %s", root, error)
            ended.wait(SECONDS)

    with ExitStack() as stack:
        if metrics_port is not None:
            stack.enter_context(_metrics(store, host, metrics_port))
        here = copy_context()  # Prefect's settings, above all which server, are the context's
        watcher = threading.Thread(target=here.run, args=(run,), name="watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


@contextmanager
def _metrics(store: Store, host: str, port: int) -> Iterator[None]:
    from prometheus_client import start_http_server

    from normloom.prefect.notifications.prometheus import registry, runs_waiting

    here = copy_context()

    def waiting() -> dict[str, int] | None:
        return here.copy().run(runs_waiting, store)

    try:
        server, thread = start_http_server(port, addr=host, registry=registry(store, waiting))
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}; give another port") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _read(mark: Path) -> str | None:
    try:
        return mark.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None

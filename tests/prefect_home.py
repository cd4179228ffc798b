"""Homes of Prefect for tests: migrating a new database takes a quarter of a minute, so all copy one."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from normloom.prefect.server import prefect_server, using_server

_MIGRATED = Path(__file__).parent.parent / ".pytest_cache" / f"prefect-{version('prefect')}"


def prefect_home(place: Path) -> Path:
    """Make a new directory a home of Prefect, its database migrated and empty, and return it."""
    _MIGRATED.mkdir(parents=True, exist_ok=True)
    database = _MIGRATED / "prefect.db"
    with (_MIGRATED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            _migrate(database)
    place.mkdir(parents=True)
    shutil.copy(database, place)
    return place


def _migrate(database: Path) -> None:
    new = database.with_suffix(".new")
    new.unlink(missing_ok=True)
    url = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{new}"}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=os.environ | url, check=True, capture_output=True)
    new.replace(database)


@dataclass(frozen=True)
class Prefect:
    """A Prefect server and its home."""

    url: str
    home: Path
    process: int

    @contextmanager
    def used(self) -> Iterator[str]:
        """Run flows of this process, and those of processes with its environment, on the server; yield its URL."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_HOME", str(self.home))
            with using_server(self.url):
                yield self.url


@contextmanager
def running_prefect(place: Path, *, private: bool = True, log: Path | None = None) -> Iterator[Prefect]:
    """Run a Prefect server whose home becomes the new directory `place`."""
    home, others = prefect_home(place), set(psutil.Process().children())
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_HOME", str(home))
            url = stack.enter_context(prefect_server(private=private, log=log))
        [server] = set(psutil.Process().children()) - others
        yield Prefect(url, home, server.pid)


@contextmanager
def own_prefect(place: Path, *, private: bool = True, log: Path | None = None) -> Iterator[str]:
    """Run a Prefect server whose home becomes the new directory `place`; yield the URL of its API.

    Flows of this process run on it, and those of processes with this one's environment.
    """
    with running_prefect(place, private=private, log=log) as prefect, prefect.used() as url:
        yield url

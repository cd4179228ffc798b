"""Builds that have no lock: those at work, and those that failed or were stopped before their end.

A build leaves a record when it starts, holds the record's file while it works, and removes it when its lock is
written. What is left tells why the build failed; a record without a reason is of a build that was stopped or killed.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.builds import started
from normloom.errors import NormloomError
from normloom.store import BUILDS, Store, write_file, writing

KEPT = 50  # records of a system; older ones are removed when a build starts


class UnfinishedBuild(BaseModel):
    """What was asked of a build that has not finished, and the error that ended it."""

    model_config = ConfigDict(frozen=True)
    system: str
    build: str
    profile: str = ""
    settings: Sequence[str] = ()
    selection: Mapping[str, Any] = Field(default_factory=dict)
    process: int = Field(default_factory=os.getpid)
    host: str = Field(default_factory=platform.node)
    error: str | None = None
    at_work: bool = Field(default=False, exclude=True)

    @property
    def started(self) -> datetime | None:
        """When the build began, None if its id does not tell."""
        return started(self.build)

    @property
    def state(self) -> Literal["running", "failed", "interrupted"]:
        """Whether the build is at work, failed, or was stopped or killed."""
        return "running" if self.at_work else "failed" if self.error else "interrupted"


@contextmanager
def recorded(store: Store, build: UnfinishedBuild) -> Iterator[None]:
    """Keep a record of a build for as long as it lasts, and afterwards if it does not finish."""
    path = store.root / build.system / BUILDS / f"{build.build}.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _prune(path.parent)
    write_file(path, _text(build))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        except Exception as error:
            why = str(error) if isinstance(error, NormloomError) else f"{type(error).__name__}: {error}"
            write_file(path, _text(build.model_copy(update={"error": why})))
            raise
    path.unlink(missing_ok=True)


def unfinished(store: Store, system: str) -> list[UnfinishedBuild]:
    """Return the builds of a system that have no lock, oldest first."""
    found = (_read(path) for path in _records(store.root / system / BUILDS))
    return [build for build in found if build]


def _records(directory: Path) -> list[Path]:
    return sorted(directory.glob("[!.]*.json"))


def _read(path: Path) -> UnfinishedBuild | None:
    """Return a record, None if it is gone or no record."""
    try:
        with path.open("rb") as handle:
            build = UnfinishedBuild.model_validate_json(handle.read())
            return build.model_copy(update={"at_work": _is_held(handle.fileno())})
    except (FileNotFoundError, ValidationError):
        return None


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _prune(directory: Path) -> None:
    for path in _records(directory)[:-KEPT]:
        if (build := _read(path)) and not build.at_work:
            path.unlink(missing_ok=True)


def _text(build: UnfinishedBuild) -> bytes:
    return build.model_dump_json(indent=1).encode()

"""Builds that have no lock: those at work, and those that failed or were stopped before their end.

A build leaves a record when it starts, holds the record's file (`flock`) while it works, and removes it when its lock
is written. What is left tells how the build ended: it failed, or was cancelled; a record that nobody holds and that
names no end is of a build that was killed. The kernel gives the file back whichever way a process ends.
"""

from __future__ import annotations

import fcntl
import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.core.errors import BuildCancelledError, StoreError, WaitingError, cause
from normloom.core.machine.object_path import ObjectPath
from normloom.history.builds import started
from normloom.planning.costs.spent import Spent
from normloom.store.files import sync_directory, writing
from normloom.store.layout import BUILDS
from normloom.store.locks.lease import Lease, is_held, take
from normloom.store.store import Store

State = Literal["running", "waiting", "failed", "cancelled", "killed"]

KEPT = 50  # records of a system; older ones are removed when a build starts


class UnfinishedBuild(BaseModel):
    """What was asked of a build that has not finished, and how it ended.

    `stage` is the stage whose error ended it, if one did. `spent` is what its finished stages, or all parts if it could
    tell, asked of models. `flow_run` is the id of its run in Prefect. `target` and
    `command` are as in `BuildRequest`.
    """

    model_config = ConfigDict(frozen=True)
    system: str
    target: str | None = ""
    command: str = ""
    build: str
    profile: str = ""
    settings: Sequence[str] = ()
    selection: Mapping[str, Any] = Field(default_factory=dict)
    process: int = Field(default_factory=os.getpid)
    host: str = Field(default_factory=platform.node)
    flow_run: str | None = None
    spent: Spent | None = None
    stage: str | None = None
    error: str | None = None
    cancelled: bool = False
    waiting: bool = False
    at_work: bool = Field(default=False, exclude=True)

    @property
    def started(self) -> datetime | None:
        """When the build began, None if its id does not tell."""
        return started(self.build)

    @property
    def state(self) -> State:
        """Whether the build is at work, waits for work sent elsewhere (the same command collects it), failed, was
        cancelled (Ctrl-C, SIGTERM, Cancel in the UI) or was killed.
        """
        if self.at_work:
            return "running"
        if self.waiting:
            return "waiting"
        return "cancelled" if self.cancelled else "failed" if self.error else "killed"


class BuildRecord:
    """The record of a build at work: its file, held until `close`."""

    def __init__(self, path: Path, build: UnfinishedBuild) -> None:
        self._path = path
        self._build = build
        self._held: IO[bytes] | None = None
        self._lease: Lease | None = None  # of a record in object storage
        self._changing = threading.Lock()  # stages end in threads of their own
        self._write()

    def belongs_to(self, flow_run: str) -> None:
        """Name the run in Prefect."""
        self._change(flow_run=flow_run)

    def spends(self, spent: Spent) -> None:
        """Say what the build has asked of models until now, for the case that it is killed."""
        with suppress(StoreError):
            self._change(spent=spent)

    def ended(self, error: BaseException, *, stage: str | None = None, spent: Spent | None = None) -> None:
        """Say how the build ended and what it asked of models; the first word of it stands."""
        if self._build.error or self._build.cancelled:
            return
        told = {"spent": spent} if spent else {}
        with suppress(StoreError):  # a full disk, above all: the error to tell is the one that ended the build
            if isinstance(error, BuildCancelledError) or not isinstance(error, Exception):
                self._change(cancelled=True, **told)
            else:
                waiting = isinstance(error, WaitingError)
                self._change(error=cause(error), stage=stage, waiting=waiting, **told)

    def close(self, *, finished: bool) -> None:
        """Give the file back; remove it if the build has a lock."""
        if finished:
            self._path.unlink(missing_ok=True)
        if self._held:
            self._held.close()
        if self._lease:
            self._lease.give_back()
            self._lease.path.unlink(missing_ok=True)

    def _change(self, **fields: Any) -> None:
        with self._changing:
            self._build = self._build.model_copy(update=fields)
            self._write()

    def _write(self) -> None:
        """Put a new file in place that is held already, so that at no moment the build looks dead."""
        if isinstance(self._path, ObjectPath):
            self._lease = self._lease or take(_lease_of(self._path), self._build.build)
            self._path.put(self._build.model_dump_json(indent=1).encode())
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        with writing(self._path), ExitStack() as undo:
            held = undo.enter_context(temporary.open("wb"))
            undo.callback(temporary.unlink, missing_ok=True)
            fcntl.flock(held, fcntl.LOCK_EX)
            held.write(self._build.model_dump_json(indent=1).encode())
            held.flush()
            os.fsync(held.fileno())
            temporary.replace(self._path)
            sync_directory(self._path.parent)
            undo.pop_all()
        before, self._held = self._held, held
        if before:
            before.close()


@contextmanager
def recorded(store: Store, build: UnfinishedBuild) -> Iterator[BuildRecord]:
    """Keep a record of a build for as long as it lasts, and afterwards if it does not finish."""
    path = store.root / build.system / BUILDS / f"{build.build}.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _prune(path.parent)
    record = BuildRecord(path, build)
    finished = False
    try:
        yield record
        finished = True
    except BaseException as error:
        record.ended(error)
        raise
    finally:
        record.close(finished=finished)


def dead(store: Store, system: str) -> list[UnfinishedBuild]:
    """Return the builds of a system that ended without a lock, however they did, oldest first."""
    return [build for build in unfinished(store, system) if not build.at_work]


def unfinished(store: Store, system: str) -> list[UnfinishedBuild]:
    """Return the builds of a system that have no lock, oldest first."""
    found = (_read(path) for path in _records(store.root / system / BUILDS))
    return [build for build in found if build]


def _records(directory: Path) -> list[Path]:
    return sorted(directory.glob("[!.]*.json"))


def _read(path: Path) -> UnfinishedBuild | None:
    """Return a record, None if it is gone or no record."""
    try:
        if isinstance(path, ObjectPath):
            build = UnfinishedBuild.model_validate_json(path.read_bytes())
            return build.model_copy(update={"at_work": is_held(_lease_of(path))})
        with path.open("rb") as handle:
            build = UnfinishedBuild.model_validate_json(handle.read())
            return build.model_copy(update={"at_work": _is_held(handle.fileno())})
    except (FileNotFoundError, ValidationError):
        return None


def _lease_of(path: ObjectPath) -> ObjectPath:
    return path.with_name(f".{path.name}.lease")


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

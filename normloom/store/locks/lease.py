"""Locks in object storage: a lease is an object that its holder renews, and that others may take once it does not.

The object names its holder and counts its holders (`fence`): it is created by a conditional put and renewed, taken over
and given back by puts that hold only if nobody else has written it meanwhile. So of two who take it one wins, and a
holder that slept too long finds that it has lost it. Whether a lease has expired depends on the storage's clock alone.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath

SECONDS = "NORMLOOM_LEASE_SECONDS"
WAIT_SECONDS = 0.5  # between looks at a lease that another holds

log = logging.getLogger("normloom.store")


def lease_seconds() -> float:
    """Return how long a lease lasts that is not renewed: NORMLOOM_LEASE_SECONDS, by default 30."""
    return float(os.environ.get(SECONDS, "30"))


class Lease:
    """A lease that this process holds, renewed by a thread until it is given back.

    `until` is when it runs out if it is not renewed, by the clock of this machine, in seconds since 1970.
    """

    def __init__(self, path: ObjectPath, holder: str, fence: int, tag: str, until: float) -> None:
        self.path = path.within(max(lease_seconds() / 6, 1))  # a request that hangs is sent again in time
        self.holder, self.fence, self.until = holder, fence, until
        self.lost = False
        self._tag = tag
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renewed, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> bool:
        """Raise StoreError if another has taken the lease; renews it and returns True."""
        with self._writing:
            until = time.time() + lease_seconds()
            tag = None if self.lost else self._renew()
            self._tag, self.lost = tag or self._tag, tag is None
            self.until = self.until if self.lost else until
        if self.lost:
            raise StoreError(f"{self.path} was not renewed in time and another has taken it over: this process stops")
        return True

    def _renew(self) -> str | None:
        content = _text(self.holder, self.fence)
        tag = self.path.replace_if(content, self._tag)
        if tag is None and (found := self.path.tag_of()) and _read(found[0]) == (self.holder, self.fence):
            return self.path.replace_if(content, found[1])  # an earlier renewal arrived, but not its answer
        return tag

    @cached_property
    def ahead(self) -> float:
        """How far the clock of this machine is ahead of the storage's at most, in seconds; behind it is negative."""
        there = storage_time(self.path)
        return time.time() - there.timestamp()

    def rest(self) -> None:
        """Renew the lease no more unless asked to."""
        self._ended.set()
        self._thread.join()

    def give_back(self) -> None:
        """Let others have the lease; one that is lost is left alone."""
        self.rest()
        with suppress(StoreError):  # it expires by itself
            self.path.replace_if(_text("", self.fence), self._tag)

    def _renewed(self) -> None:
        wait = lease_seconds() / 3
        while not self._ended.wait(wait):
            try:
                self.require()
                wait = lease_seconds() / 3
            except StoreError as error:
                log.warning("%s", error)
                wait = lease_seconds() / 12
                if self.lost:
                    return


def take(path: ObjectPath, holder: str) -> Lease | None:
    """Return the lease if nobody holds it, else None."""
    before, fence, tag = "", 0, None
    with suppress(FileNotFoundError):
        content, tag, changed = path.tagged()
        before, fence = _read(content)
        if before and not _expired(path, changed):
            return None
    until = time.time() + lease_seconds()
    taken = path.replace_if(_text(holder, fence + 1), tag)
    return Lease(path, holder, fence + 1, taken, until) if taken else None


@contextmanager
def held(path: ObjectPath, holder: str, *, waiting: Callable[[str], None] = lambda _: None) -> Iterator[Lease]:
    """Hold a lease, waiting for it; `waiting` is called once, with its holder."""
    told = False
    while (lease := take(path, holder)) is None:
        if not told:
            waiting(holder_of(path) or "another process")
            told = True
        time.sleep(WAIT_SECONDS)
    try:
        yield lease
    finally:
        lease.give_back()


def wait_until_free(path: ObjectPath) -> None:
    """Wait until a lease is free; a holder whose lease has run out can no longer renew it."""
    while holder_of(path):
        if taken := take(path, "another"):
            taken.give_back()
        else:
            time.sleep(WAIT_SECONDS)


def holder_of(path: ObjectPath) -> str:
    """Return who holds or last held a lease that was not given back; nothing if nobody does."""
    try:
        return _read(path.read_bytes())[0]
    except FileNotFoundError:
        return ""


def is_held(path: ObjectPath) -> bool:
    """Return whether somebody holds a lease."""
    try:
        content, _, changed = path.tagged()
    except FileNotFoundError:
        return False
    return bool(_read(content)[0]) and not _expired(path, changed)


def storage_time(path: ObjectPath) -> datetime:
    """Return the time by the storage's clock, perhaps cut to seconds."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    probe.put(b"")
    try:
        return probe.tagged()[2]
    finally:
        probe.unlink(missing_ok=True)


def _expired(path: ObjectPath, changed: datetime) -> bool:
    return storage_time(path) - changed > timedelta(seconds=lease_seconds())


def _text(holder: str, fence: int) -> bytes:
    return json.dumps({"holder": holder, "fence": fence, "renewal": secrets.token_hex(4)}).encode()


def _read(content: bytes) -> tuple[str, int]:
    """Return holder and fence; of the lock file of a disk, copied here with its store, that nobody holds it."""
    try:
        found = json.loads(content)
        return str(found["holder"]), int(found["fence"])
    except (ValueError, KeyError, TypeError):
        return "", 0

"""Garbage collection: tables that no recent build names and no stage points to, and what interrupted builds left.

What goes is found first and shown; `remove` looks again while no build can run and takes only what was shown and may
still go. A table goes in an order that can be broken off anywhere: the marks of its parts, its manifest (from here on
it is no table, and holds nothing from which a build could resume), its files, its directory. In object storage the
manifest goes first: what a removal that comes late leaves is a table, or parts from which a build resumes.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from stat import S_ISDIR
from typing import Literal

from pydantic import ValidationError

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.rows.text import counted
from normloom.core.table import Manifest, TableRef
from normloom.history.builds import locks
from normloom.planning.keys import FORMAT as KEY_FORMAT
from normloom.store.latest import released_key
from normloom.store.layout import (
    BUILDS,
    CURRENT,
    LOCK,
    MANIFEST,
    PRODUCT,
    RELEASE,
    REUSED,
    RUNNING,
    SCRATCH,
    SUPERSEDED,
)
from normloom.store.locks import lease
from normloom.store.locks.hold import Hold
from normloom.store.parts import committed_parts
from normloom.store.store import Store

KEEP = 10
PARTIAL = timedelta(days=7)
TEMPORARY = timedelta(days=1)
_KEY = re.compile(r"[0-9a-f]{20}")
_MARK = re.compile(rf"part-\d+\.json|{re.escape(REUSED)}")
_TEMPORARY = re.compile(r"\..*\.tmp")

What = Literal["table", "partial", "leftover"]
Tables = Set[tuple[str, str]]  # stage and key of each


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """One thing to remove: a published table, an unpublished one (partial) or a file that belongs to none (leftover).

    `touched` is when it last changed, in seconds since 1970. `bytes` leaves out files that another table shares.
    `spared` are names in the directory that stay.
    """

    what: What
    stage: str
    path: Path
    parts: int
    bytes: int
    touched: float
    spared: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What may go of one system, and by which rule."""

    system: str
    keep: int
    partial: timedelta
    old_keys: bool
    garbage: Sequence[Garbage]


def old_tables(store: Store, system: str) -> str:
    """Say how many of the newest tables have keys of an earlier format, which no build reuses; nothing if none has."""
    count = sum(_is_outdated(table) for table in store.newest(system))
    if not count:
        return ""
    return (
        f"{counted(count, 'table')} of {system} in {store.root}: made by an earlier version, with keys of another "
        f"format; builds rebuild them, normloom gc {system} --old-keys removes them"
    )


def collect(
    store: Store, system: str, *, keep: int = KEEP, partial: timedelta = PARTIAL, old_keys: bool = False
) -> Collection:
    """Return what may go: all tables but the newest of each stage and those of the last `keep` builds of each system.

    The remake that stands for a table stays with it. Unpublished tables go when untouched for `partial` or when they
    have neither a finished part nor a scratch folder, unless a process holds their lock. With `old_keys` all tables
    whose keys have an earlier format go too, except the release. Raises StoreError if the lock of a build is damaged.
    """
    store.require(system)
    home = store.root / system
    if home.is_symlink():
        raise StoreError(
            f"{home} is a symbolic link, and gc removes nothing outside the store: give --store its target"
        )
    recent = locks(store, system, newest=keep)
    with _cleaning(home):
        stages = [path for path in _folders(home) if path.name != BUILDS]
        kept = {(name, stage.key) for lock in recent for name, stage in lock.stages.items()}
        kept |= {(ref.stage, ref.key) for ref in _read_elsewhere(store, system, keep)}
        kept |= {(stage.name, key) for stage in stages if (key := _pointed(stage / CURRENT))}
        if old_keys:
            kept = {(stage, key) for stage, key in kept if not _is_outdated(store.published(system, stage, key))}
        kept |= {shown for shown in [released_key(store, system)] if shown}
        kept |= _remakes(home, kept)
        garbage = [item for stage in stages for path in _folders(stage) for item in _found(path, kept, partial)]
        garbage += [item for path in (home, *_folders(home)) for item in _temporaries(path, path.name)]
    return Collection(system=system, keep=keep, partial=partial, old_keys=old_keys, garbage=garbage)


def remove(store: Store, shown: Collection) -> list[Garbage]:
    """Remove what was shown and may still go, and return it; raises StoreError while a build of the system runs."""
    with idle(store, shown.system) as hold:
        agreed = {(item.what, item.path) for item in shown.garbage}
        found = collect(store, shown.system, keep=shown.keep, partial=shown.partial, old_keys=shown.old_keys).garbage
        with _cleaning(store.root):
            return [item for item in found if (item.what, item.path) in agreed and _remove(item, hold)]


@contextmanager
def idle(store: Store, system: str) -> Iterator[Hold]:
    """Keep builds of a system from going on while this lasts; raises StoreError if one is at work.

    What is yielded removes: in object storage only as long as no build can have begun.
    """
    path = store.root / system / BUILDS / RUNNING
    busy = StoreError(f"a build of {system} is running in {store.root}: run this again once it has finished")
    if isinstance(path, ObjectPath):
        with _held(path, create=True) as held:
            builds = list(path.parent.glob(f".{RUNNING}-*"))
            if not held or any(lease.is_held(one) for one in builds):
                raise busy
            for killed in builds:
                held.remove(killed)
            yield held
        return
    with _cleaning(path):
        path.parent.mkdir(exist_ok=True)
        with _held(path, create=True) as held:
            if not held:
                raise busy
            yield held


def _is_outdated(table: Manifest | None) -> bool:
    return table is not None and table.key_fields.get("format") != KEY_FORMAT


def _read_elsewhere(store: Store, system: str, keep: int) -> Iterator[TableRef]:
    """Yield the tables of the system that recent builds of other systems started from."""
    for other in store.systems():
        for lock in locks(store, other, newest=keep):
            yield from (ref for ref in lock.reads.values() if ref.system == system)


def _remakes(home: Path, kept: Tables) -> set[tuple[str, str]]:
    """Return the tables that stand for kept ones, and so on."""
    found: set[tuple[str, str]] = set()
    pending = set(kept)
    while pending:
        targets = {(stage, key) for stage, name in pending if (key := _pointed(home / stage / name / SUPERSEDED))}
        pending = targets - found
        found |= pending
    return found


def _found(directory: Path, kept: Tables, partial: timedelta) -> Iterator[Garbage]:
    """Yield what may go of one directory of a stage: all of it, or files in it, or nothing."""
    if not _KEY.fullmatch(directory.name):
        return
    stage, files = directory.parent.name, _files(directory)
    if (stage, directory.name) in kept:
        yield from _temporaries(directory, stage)
        yield from _unnamed(directory, files)
        return
    # By its pointer the next build finds a remake: if that stays, the pointer does.
    spared = frozenset({SUPERSEDED} if (stage, _pointed(directory / SUPERSEDED)) in kept else ())
    stats = [stat for name, stat in files.items() if name not in spared]
    scratch = _contents(directory / SCRATCH)
    if spared and not stats:
        return
    item = Garbage(
        what="table" if MANIFEST in files else "partial",
        stage=stage,
        path=directory,
        parts=len(committed_parts(directory)),
        bytes=_freed(directory, spared),
        touched=max(stat.st_mtime for stat in (directory.stat(), *stats, *scratch)),
        spared=spared,
    )
    if item.what == "table" or not (item.parts or scratch) or _older(item.touched, partial):
        with _held(directory / LOCK) as held:
            if held:
                yield item
                return
    yield from _temporaries(directory, stage)


def _freed(directory: Path, spared: frozenset[str]) -> int:
    """Return the bytes that go with a directory: those of files that have no other name outside it."""
    links: Counter[tuple[int, int]] = Counter()
    found: dict[tuple[int, int], os.stat_result] = {}
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):
            stat = path.lstat()
            if path.name not in spared and not S_ISDIR(stat.st_mode):
                links[stat.st_dev, stat.st_ino] += 1
                found[stat.st_dev, stat.st_ino] = stat
    return sum(stat.st_size for file, stat in found.items() if links[file] == stat.st_nlink)


def _unnamed(directory: Path, files: Mapping[str, os.stat_result]) -> Iterator[Garbage]:
    """Yield what the manifest of a published table does not name: Parquet files, folders of files, its scratch."""
    try:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (FileNotFoundError, ValidationError):
        return
    named = {record.name.partition("/")[0] for part in manifest.parts for record in part.stored}
    named.add(f"{RELEASE}-{manifest.content}")
    for name, stat in files.items():
        unnamed = name.endswith(".parquet") or name.startswith((PRODUCT, f"{RELEASE}-")) or name == SCRATCH
        if unnamed and name not in named:
            yield _leftover(directory / name, directory.parent.name, stat)


def _temporaries(directory: Path, stage: str) -> Iterator[Garbage]:
    """Yield the files that a writer left half-written."""
    for name, stat in _files(directory).items():
        if _TEMPORARY.fullmatch(name) and _older(stat.st_mtime, TEMPORARY):
            yield _leftover(directory / name, stage, stat)


def _leftover(path: Path, stage: str, stat: os.stat_result) -> Garbage:
    return Garbage(what="leftover", stage=stage, path=path, parts=0, bytes=stat.st_size, touched=stat.st_mtime)


def _remove(item: Garbage, hold: Hold) -> bool:
    """Remove one thing and return whether it is gone; it is not if a process holds its lock."""
    if item.what == "leftover":
        hold.remove(item.path)
        return True
    return remove_table(item.path, hold, spared=item.spared)


def remove_table(directory: Path, hold: Hold, *, spared: frozenset[str] = frozenset()) -> bool:
    """Remove a table but for the names that are spared, and return whether it is gone: not if its lock is held."""
    with _held(directory / LOCK) as held:
        if held:
            _remove_directory(directory, spared, Hold.of([hold, held]))
        return held is not None


def _remove_directory(directory: Path, spared: frozenset[str], hold: Hold) -> None:
    """Remove a table in an order that may be broken off anywhere and gone through again."""
    paths = sorted(directory.iterdir(), key=lambda path: path.name == LOCK)  # held to the end
    marks = [path for path in paths if _MARK.fullmatch(path.name)]
    manifest = directory / MANIFEST
    for path in [manifest, *marks] if hold.leases else [*marks, manifest]:  # a removal refused leaves a whole table
        hold.remove(path)
    for path in paths:
        if path.name not in spared:
            hold.remove(path)
    if not spared:
        directory.rmdir()


@contextmanager
def _held(path: Path, *, create: bool = False) -> Iterator[Hold | None]:
    """Hold a lock file, or yield None if another does; a missing file is held by nobody."""
    if isinstance(path, ObjectPath):
        if not create and not path.is_file():
            yield Hold()
        elif taken := lease.take(path, f"gc {secrets.token_hex(3)}"):
            try:
                yield Hold((taken,))
            finally:
                taken.give_back()
        else:
            yield None
        return
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        handle = os.open(path, flags, 0o666)
    except FileNotFoundError:
        yield Hold()
        return
    with os.fdopen(handle, "r+b"):
        yield _locked(handle)


def _locked(handle: int) -> Hold | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return Hold()


def _older(touched: float, age: timedelta) -> bool:
    return touched < time.time() - age.total_seconds()


def _files(directory: Path) -> dict[str, os.stat_result]:
    """Return what a directory holds; what a build at work renames meanwhile is left out."""
    found: dict[str, os.stat_result] = {}
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = path.lstat()
    return found


def _contents(folder: Path) -> list[os.stat_result]:
    """Return what a folder holds at any depth, as far as it is still there; nothing for one that is not."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found.append(path.lstat())
    return found


def _folders(path: Path) -> list[Path]:
    """Return the directories in a directory, in order; links and hidden ones are none of the store's."""
    found = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return sorted(entry for entry in found if entry.is_dir() and not entry.is_symlink())


def _pointed(pointer: Path) -> str | None:
    """Return the key that a pointer names, None if the pointer is missing."""
    try:
        return pointer.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _cleaning(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot clean up {error.filename or path}: {error.strerror}; fix that and rerun gc to resume"
        ) from error

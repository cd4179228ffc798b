"""The builds of a store, read from their locks: which table each stage had in which build."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from normloom.core.errors import StoreError, UsageError
from normloom.core.formats.yaml_text import load_yaml
from normloom.core.table import Manifest, TableRef
from normloom.history.releases import is_version, version_named
from normloom.history.terms import SourceTerms
from normloom.planning.costs.spent import Spent
from normloom.store.layout import BUILDS
from normloom.store.store import Store

NAMED = 5  # builds that an error message lists
_RELATIVE = re.compile(r"last(?:~(\d+))?|previous")
_STARTED = "%Y%m%dT%H%M%S"


class StageLock(BaseModel):
    """One stage of a build: its table and how many rows that held."""

    model_config = ConfigDict(frozen=True)
    key: str
    content: str
    rows: int
    dropped: int = 0
    quarantined: int = 0
    stale: str | None = None
    model: Mapping[str, Any] | None = None


class BuildLock(BaseModel):
    """One finished build: the table of each stage, in the order of the flow.

    `file` is the Python file of a flow that is no installed system, as `normloom build` was given it.
    """

    model_config = ConfigDict(frozen=True)
    system: str
    build: str
    file: str = ""
    stages: Mapping[str, StageLock]
    profile: str = ""
    settings: Sequence[str] = ()
    selection: Mapping[str, Any] = Field(default_factory=dict)
    reads: Mapping[str, TableRef] = Field(default_factory=dict)  # tables of other systems
    fresh_hours: float | None = None  # how long its release is fresh
    source: SourceTerms = SourceTerms()
    spent: Spent | None = None

    @property
    def started(self) -> datetime | None:
        """When the build began, None if its id does not tell."""
        return started(self.build)


@dataclass(frozen=True, kw_only=True)
class BuildAccount:
    """What became of one build: stages whose table it made, found there (reused), or that is no longer in the store.

    `released` has the rows of the last stages, those that no other stage reads.
    """

    lock: BuildLock
    made: Sequence[str]
    reused: Sequence[str]
    gone: Sequence[str]
    released: Mapping[str, int]


def locks(store: Store, system: str, *, newest: int | None = None) -> list[BuildLock]:
    """Return the locks of a system's builds, or of the newest few, oldest first; StoreError if one is damaged."""
    files = _lock_files(store, system)
    return [_read(path) for path in (files if newest is None else files[max(len(files) - newest, 0) :])]


def accounts(store: Store, system: str, limit: int | None = None) -> list[BuildAccount]:
    """Return what became of a system's builds, or of the newest few, oldest first."""
    published = cache(lambda stage, key: store.published(system, stage, key))
    newest = store.newest(system)  # tells which stages are read if the tables of a build are gone
    return [_account(lock, published, newest) for lock in locks(store, system, newest=limit)]


def find_build(store: Store, text: str, *, system: str | None = None) -> BuildLock:
    """Return the build that is meant by its id, the beginning or end of it, `last`, `last~N` or `previous` (`last~1`).

    A version of the release, such as 1.2.0, means the build that first released it. Only builds of `system` are looked
    at if it is given. Raises UsageError if none or several are meant.
    """
    if is_version(text):
        owner = system or _only_system(store)
        return find_build(store, version_named(store, owner, text).build, system=owner)
    relative = _RELATIVE.fullmatch(text)
    if relative:
        back = 1 if text == "previous" else int(relative[1] or 0)
        return _read(_counted_back(store, text, back, system or _only_system(store)))
    systems = [system] if system else store.systems()
    files = sorted((path for name in systems for path in _lock_files(store, name)), key=_age)
    meant = [path for path in files if path.stem == text]
    meant = meant or [path for path in files if text and (path.stem.startswith(text) or path.stem.endswith(text))]
    if len(meant) > 1:
        raise UsageError(f"{text!r} matches {len(meant)} builds: {_named(meant)}; give more of the id")
    if not meant:
        where = f"of {system} " if system else ""
        known = f"the newest are {_named(files)}" if files else "no builds yet: run normloom build first"
        raise UsageError(f"unknown build {text!r} {where}in {store.root}; {known}")
    return _read(meant[0])


def _account(
    lock: BuildLock, published: Callable[[str, str], Manifest | None], newest: Sequence[Manifest]
) -> BuildAccount:
    tables = {name: published(name, stage.key) for name, stage in lock.stages.items()}
    there = {name: manifest for name, manifest in tables.items() if manifest}
    refs = (ref for manifest in (*there.values(), *newest) for ref in (*manifest.inputs, *manifest.sides))
    read = {ref.stage for ref in refs if ref.system == lock.system}
    return BuildAccount(
        lock=lock,
        made=[name for name, manifest in there.items() if manifest.build == lock.build],
        reused=[name for name, manifest in there.items() if manifest.build != lock.build],
        gone=[name for name, manifest in tables.items() if manifest is None],
        released={name: stage.rows for name, stage in lock.stages.items() if name not in read},
    )


def _counted_back(store: Store, text: str, back: int, system: str) -> Path:
    files = _lock_files(store, system)
    if back >= len(files):
        if not files:
            raise UsageError(f"{system} has no builds in {store.root} yet: run normloom build {system} first")
        only = f"only {len(files)} builds: {_named(files)}" if len(files) > 1 else f"only one build: {files[0].stem}"
        raise UsageError(f"unknown build {text!r}: {store.root} has {only} of {system}")
    return files[-1 - back]


def _only_system(store: Store) -> str:
    systems = [name for name in store.systems() if _lock_files(store, name)]
    if len(systems) != 1:
        known = f"has builds of {', '.join(systems)}: say which with --system" if systems else "has no builds yet"
        raise UsageError(f"the store at {store.root} {known}")
    return systems[0]


def _lock_files(store: Store, system: str) -> list[Path]:
    return sorted((store.root / system / BUILDS).glob("[!.]*.yaml"), key=_age)


def _age(path: Path) -> tuple[str, int, str]:
    """Order builds by their start; of those that began in the same second the one that ended first is older."""
    return path.stem.rpartition("-")[0], path.stat().st_mtime_ns, path.stem


def _named(files: Sequence[Path]) -> str:
    newest = ", ".join(path.stem for path in reversed(files[-NAMED:]))
    return f"{newest}, ..." if len(files) > NAMED else newest


def started(build: str) -> datetime | None:
    """Return when the build with this id began, None if the id does not tell."""
    try:
        return datetime.strptime(build.partition("-")[0], _STARTED).replace(tzinfo=UTC)
    except ValueError:
        return None


def _read(path: Path) -> BuildLock:
    try:
        return BuildLock.model_validate(load_yaml(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise StoreError(
            f"the lock {path} is damaged ({_first_line(error)}): expected system, build and stages with keys; "
            "restore it from a backup, or remove it to forget that build"
        ) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return str(error).strip().partition("\n")[0]

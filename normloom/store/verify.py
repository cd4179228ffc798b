"""Damage to stored tables: files that are missing, cut or changed since they were written.

A file's checksum is in its table's manifest. What is damaged is made again by the build that made it: `repair` takes
the damaged parts out of their table, which is then unfinished and keeps all its other parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from normloom.core.table import Manifest
from normloom.store.integrity import file_problem
from normloom.store.latest import LATEST
from normloom.store.layout import BUILDS, CURRENT, MANIFEST, MARKERS, REUSED, SUPERSEDED, part_marker
from normloom.store.locks.hold import Hold
from normloom.store.parts import committed_part, committed_parts, content_hash
from normloom.store.store import Store

PARENTS = "parents"  # of rows, named as a damaged file is


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One damaged file of a table; `part` is None if it is the manifest, or a pointer or link to a table."""

    system: str
    stage: str
    key: str
    part: int | None
    file: str
    problem: str

    def __str__(self) -> str:
        part = "" if self.part is None else f", part {self.part}"
        return f"table {self.system}/{self.stage}/{self.key}{part}: {self.file} {self.problem}"


def verify(store: Store, system: str | None = None) -> Iterator[Damage]:
    """Yield all damage in a store, or in one system's tables: of every table, not only the newest."""
    for name in [system] if system else store.systems():
        for stage in _folders(store.root / name):
            if stage.name == BUILDS:
                continue
            for directory in _folders(stage):
                yield from _table(directory, name, stage.name)
            yield from _pointer(stage, name)


def repair(store: Store, found: Iterable[Damage], hold: Hold) -> None:
    """Take damaged parts out of their tables, which the next build finishes; a table's other parts are kept.

    A manifest that cannot be read is removed; the table is then finished from its parts. `hold` keeps builds away.
    """
    for damage in found:
        directory = store.directory(damage.system, damage.stage, damage.key)
        if damage.file == CURRENT:
            hold.remove(directory.parent / CURRENT)
            continue
        if damage.file in (LATEST, SUPERSEDED):
            hold.remove(store.root / damage.system / LATEST if damage.file == LATEST else directory / SUPERSEDED)
            continue
        if damage.file == PARENTS:  # no part of it was made of the tables that are there
            for marker in [*directory.glob(MARKERS), directory / REUSED]:
                hold.remove(marker)
        if damage.part is not None:
            hold.remove(part_marker(directory, damage.part))
            hold.remove(directory / damage.file)
        hold.remove(directory / MANIFEST)


def _table(directory: Path, system: str, stage: str) -> Iterator[Damage]:
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        return  # unfinished: its parts are verified when a build takes them up
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        problem = f"cannot be read ({error.error_count()} faults)"
        yield Damage(system=system, stage=stage, key=directory.name, part=None, file=MANIFEST, problem=problem)
        return
    if (manifest.system, manifest.stage, manifest.key) != (system, stage, directory.name):
        problem = f"is that of table {manifest.ref}"
        yield Damage(system=system, stage=stage, key=directory.name, part=None, file=MANIFEST, problem=problem)
        return
    if edited := _edited(manifest, directory):
        yield Damage(system=system, stage=stage, key=directory.name, part=None, file=MANIFEST, problem=edited)
        return  # what it says of files says nothing; the build that makes it again verifies its parts
    yield from _damage_of(manifest, directory)


def _edited(manifest: Manifest, directory: Path) -> str | None:
    """Say how a manifest differs from what was published, None if it does not: its seal, its parts, its content."""
    if not manifest.intact:
        return "was edited: its seal differs"
    if manifest.content != content_hash(manifest.parts):
        return "was edited: its content is not that of its parts"
    marks = {part.index: committed_part(directory, part.index, verify=False) for part in manifest.parts}
    differing = [part.index for part in manifest.parts if (own := marks[part.index]) and not own.is_as(part)]
    return f"was edited: part {differing[0]} is not as its own record says" if differing else None


def _damage_of(manifest: Manifest, directory: Path) -> Iterator[Damage]:
    there = set(committed_parts(directory))
    for part in manifest.parts:
        if part.index not in there:
            yield Damage(
                system=manifest.system,
                stage=manifest.stage,
                key=manifest.key,
                part=part.index,
                file=part_marker(directory, part.index).name,
                problem="is missing",
            )
        for record in part.stored:
            if problem := file_problem(directory, record):
                yield Damage(
                    system=manifest.system,
                    stage=manifest.stage,
                    key=manifest.key,
                    part=part.index,
                    file=record.name,
                    problem=problem,
                )


def _pointer(stage: Path, system: str) -> Iterator[Damage]:
    try:
        key = (stage / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return
    if not (stage / key).is_dir():  # one without a manifest is a table to be finished
        problem = "points to a missing table"
        yield Damage(system=system, stage=stage.name, key=key, part=None, file=CURRENT, problem=problem)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))

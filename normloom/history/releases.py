"""The versions of a system's releases, recorded by the builds that released them.

    <root>/<system>/builds/releases/1.2.0.json

The first release is 1.0.0. Other columns or types raise the first number, other rows the second, other terms of the
source (licence, citation) the third. A build that releases what the newest version has records nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from normloom.core.errors import StoreError, UsageError
from normloom.core.table import Manifest, TableRef
from normloom.history.terms import SourceTerms
from normloom.store.files import put_new, write_file
from normloom.store.layout import BUILDS
from normloom.store.store import Store

RELEASES = "releases"
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class ReleaseRecord(BaseModel):
    """One version: the released table, the build that first released it, and the terms of its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    system: str
    stage: str
    key: str
    content: str
    rows: int
    build: str
    created: datetime
    columns: Mapping[str, str]
    source: SourceTerms = SourceTerms()

    @property
    def ref(self) -> TableRef:
        """The released table."""
        return TableRef(system=self.system, stage=self.stage, key=self.key, content=self.content, rows=self.rows)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, by which versions are ordered."""
        return _numbers(self.version)


def is_version(text: str) -> bool:
    """Return whether a text names a version, such as 1.2.0 or v1.2.0."""
    return bool(_VERSION.fullmatch(text))


def versions(store: Store, system: str) -> list[ReleaseRecord]:
    """Return the versions of a system, oldest first; StoreError if a record is damaged."""
    files = (store.root / system / BUILDS / RELEASES).glob("[!.]*.json")
    return sorted((_read(path) for path in files), key=lambda record: record.numbers)


def version_named(store: Store, system: str, text: str) -> ReleaseRecord:
    """Return a version by its number; raises UsageError for an unknown one."""
    known = versions(store, system)
    for record in known:
        if record.version == text.removeprefix("v"):
            return record
    there = f"available: {', '.join(record.version for record in reversed(known))}" if known else "none is recorded yet"
    raise UsageError(f"unknown version {text!r} of {system} in {store.root}; {there}")


def record_release(store: Store, manifest: Manifest, *, build: str, source: SourceTerms) -> ReleaseRecord:
    """Return the version of a released table, a new one unless the newest has the same rows, columns and terms."""
    columns = {name: str(kind) for name, kind in store.scan(manifest.ref).collect_schema().items()}
    while True:
        last = next(iter(reversed(versions(store, manifest.system))), None)
        version = "1.0.0" if last is None else _next(last, manifest, columns, source)
        if last is not None and version is None:
            return last
        record = ReleaseRecord(
            version=version or "1.0.0",
            **manifest.ref.model_dump(),
            build=build,
            created=datetime.now(UTC).replace(microsecond=0),
            columns=columns,
            source=source,
        )
        path = store.root / manifest.system / BUILDS / RELEASES / f"{record.version}.json"
        if put_new(path, record.model_dump_json(indent=1).encode()):
            return record


def amend_release(store: Store, record: ReleaseRecord) -> None:
    """Write the record of a version again."""
    path = store.root / record.system / BUILDS / RELEASES / f"{record.version}.json"
    write_file(path, record.model_dump_json(indent=1).encode())


def _next(last: ReleaseRecord, manifest: Manifest, columns: Mapping[str, str], source: SourceTerms) -> str | None:
    """Return the version after the last, None if nothing differs."""
    major, minor, patch = last.numbers
    if dict(last.columns) != dict(columns):
        return f"{major + 1}.0.0"
    if last.content != manifest.content:
        return f"{major}.{minor + 1}.0"
    if (last.source.licence, last.source.citation) != (source.licence, source.citation):
        return f"{major}.{minor}.{patch + 1}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ValueError(f"{version!r} is not a version such as 1.2.0")
    return tuple(int(number) for number in found.groups())


def _read(path: Path) -> ReleaseRecord:
    try:
        record = ReleaseRecord.model_validate(json.loads(path.read_bytes()))
        _numbers(record.version)
    except (OSError, ValueError, ValidationError) as error:
        raise StoreError(
            f"the record {path} of a release is damaged ({str(error).partition(chr(10))[0]}): restore it from a "
            "backup, or remove it to forget that version"
        ) from error
    return record

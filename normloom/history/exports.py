"""The exports of a system, recorded in the store: what left it, where to, and when.

    <root>/<system>/builds/exports/20261127T181503123456-ab12.json

A record is written before the exported folder is in its place, and its `pushed` before a push begins: it may tell of
an export that did not come about, but none is missing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from normloom.core.errors import StoreError
from normloom.core.table import TableRef
from normloom.store.files import write_file, writing
from normloom.store.layout import BUILDS
from normloom.store.store import Store

EXPORTS = "exports"


class ExportRecord(BaseModel):
    """One export: the folder it was written to, the version, and the tables (system, stage, key) whose rows it holds.

    `reads` are the tables of other systems that the build started from. `pushed` is the repository on a hub that it
    was sent to, None if it was not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    export: str
    system: str
    version: str
    build: str
    created: datetime
    path: str
    format: str
    tables: Sequence[TableRef]
    reads: Sequence[TableRef] = ()
    pushed: str | None = None


def new_export_id() -> str:
    """Return an id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"


def write_export(store: Store, record: ExportRecord) -> None:
    """Write a record, or write it again with what has been added to it."""
    path = _path(store, record)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, record.model_dump_json(indent=1).encode())


def exports(store: Store, system: str) -> list[ExportRecord]:
    """Return the exports of a system, oldest first; StoreError if a record is damaged."""
    return [_read(path) for path in sorted((store.root / system / BUILDS / EXPORTS).glob("[!.]*.json"))]


def _path(store: Store, record: ExportRecord) -> Path:
    return store.root / record.system / BUILDS / EXPORTS / f"{record.export}.json"


def _read(path: Path) -> ExportRecord:
    try:
        return ExportRecord.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise StoreError(
            f"the record {path} of an export is damaged ({str(error).partition(chr(10))[0]}): restore it from a backup"
        ) from error

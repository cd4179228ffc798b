"""The store's deny list: what people took back, one JSON file for each request.

    <root>/.forgotten/20261127T181503-ab12.json           a `Forgetting`
    <root>/.forgotten/20261127T190211-cd34.purged.json    a `Purging`

Files are added and never changed. They hold ids and hashes, no texts. A copy of a file in another store's folder
denies the same there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from normloom.core.errors import StoreError, UsageError
from normloom.core.rows.forgotten import DenyList
from normloom.core.table import TableRef
from normloom.store.files import write_file, writing
from normloom.store.store import Store

FOLDER = ".forgotten"
PURGED = ".purged.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRow(_Record):
    """A row that a source brought."""

    system: str
    stage: str
    row_id: str


class Forgetting(_Record):
    """One request: what was taken back, why, when and by whom.

    `rows` are rows of sources, `texts` SHA-256 hashes of normalised texts. `reached` has the ids of all rows that came
    of them, `tables` those that held any of these, when this was asked.
    """

    forgetting: str
    created: str
    who: str
    reason: str
    rows: Sequence[SourceRow]
    texts: Sequence[str]
    reached: Sequence[str]
    tables: Sequence[TableRef]


class Purging(_Record):
    """One purge: the tables that it removed, and the scan of all files left that found nothing, or what it found."""

    created: str
    forgettings: Sequence[str]
    removed: Sequence[str]
    files: int
    bytes: int
    found: Sequence[str]


def new_id() -> str:
    """Return an id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def write_forgetting(store: Store, record: Forgetting) -> Path:
    """Add a request to the deny list and return its file."""
    return _write(store, f"{record.forgetting}.json", record)


def write_purging(store: Store, record: Purging) -> Path:
    """Record a purge and return its file."""
    return _write(store, f"{new_id()}{PURGED}", record)


def forgettings(store: Store) -> list[Forgetting]:
    """Return all requests, oldest first; raises StoreError for one that cannot be read."""
    paths = sorted(path for path in (store.root / FOLDER).glob("[!.]*.json") if not path.name.endswith(PURGED))
    return [_read(path) for path in paths]


def purgings(store: Store) -> list[Purging]:
    """Return the records of all purges, oldest first."""
    paths = sorted((store.root / FOLDER).glob(f"[!.]*{PURGED}"))
    return [Purging.model_validate_json(path.read_bytes()) for path in paths]


def deny_list(store: Store) -> DenyList:
    """Return what no source may bring."""
    found = forgettings(store)
    rows = {row.row_id: one.reason for one in found for row in one.rows}
    return DenyList(rows, {text: one.reason for one in found for text in one.texts})


def holding(store: Store) -> dict[tuple[str, str, str], str]:
    """Return the tables (system, stage, key) that hold what was taken back, with the reason."""
    return {(ref.system, ref.stage, ref.key): one.reason for one in forgettings(store) for ref in one.tables}


def require_free(tables: Mapping[str, TableRef], store: Store) -> None:
    """Raise UsageError if a build would read a table, without rebuilding it, that holds what was taken back."""
    held = holding(store)
    for stage, ref in tables.items():
        if (ref.system, ref.stage, ref.key) in held:
            raise UsageError(
                f"stage {stage!r}: table {ref} holds forgotten rows and must be rebuilt before others read it: "
                f"run normloom build {ref.system}, without --only and --from"
            )


def _write(store: Store, name: str, record: _Record) -> Path:
    path = store.root / FOLDER / name
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, record.model_dump_json(indent=1).encode())
    return path


def _read(path: Path) -> Forgetting:
    try:
        return Forgetting.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StoreError(
            f"{path}, a part of the deny list, is damaged ({str(error).partition(chr(10))[0]}): restore it from a "
            "backup; without it forgotten rows would come back"
        ) from error

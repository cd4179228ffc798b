"""Take rows back: what is asked becomes an entry of the store's deny list, with everything derived from the rows."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from normloom.core.errors import UsageError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.object_path import ObjectPath
from normloom.core.rows.forgotten import MIN_CHARS, DenyList, text_hash
from normloom.core.rows.text import normalise
from normloom.history.exports import exports
from normloom.lineage.reach import Reach, reach, source_rows, stored_tables
from normloom.lineage.trace import trace
from normloom.store.forgotten import Forgetting, new_id, write_forgetting
from normloom.store.store import Store

_NAMED = 5  # source rows that a message lists


@dataclass(frozen=True, kw_only=True, repr=False)
class Asked:
    """What is to be forgotten: hashes of texts, all that the rows reach, and what lies beyond the store's reach."""

    texts: Sequence[str]
    reach: Reach
    beyond: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types; no text of a row is in it."""
        return {
            "rows": [row.model_dump() for row in self.reach.sources],
            "texts": list(self.texts),
            "reached": len(self.reach.ids),
            "tables": [
                {"table": str(held.table), "published": held.table.manifest is not None}
                | {name: value for name, value in vars(held).items() if name != "table"}
                for held in self.reach.held
            ],
            "beyond": list(self.beyond),
        }


def ask(store: Store, rows: Sequence[str] = (), texts: Sequence[str] = ()) -> Asked:
    """Return what would be forgotten of rows, given by their ids or the beginnings of these, and of texts.

    A row that is derived from one source row means that row. Raises UsageError for an unknown id, a row
    made of several source rows, a text too short to tell a row from others, and if nothing is given.
    """
    if not rows and not texts:
        raise UsageError("give the id of a row, or a file with a text by --text-file")
    if short := [text for text in texts if len(normalise(text)) < MIN_CHARS]:
        raise UsageError(
            f"a text has {len(normalise(short[0]))} characters; at least {MIN_CHARS} are needed to tell a row from "
            "others: give the ids of its rows (normloom query finds them)"
        )
    origins = {row_id: None for given in rows for row_id in [_origin(store, given)]}
    hashes = {text_hash(text): None for text in texts}
    for row_id in origins:
        hashes |= dict.fromkeys(_own_texts(store, row_id))
    deny = DenyList(dict.fromkeys(origins, ""), dict.fromkeys(hashes, ""))
    found = reach(store, source_rows(store, deny))
    return Asked(texts=list(hashes), reach=found, beyond=beyond(store, found))


def forget(store: Store, asked: Asked, *, reason: str) -> Forgetting:
    """Add what was asked to the deny list: from now on no source brings it, and tables that hold it are stale."""
    if not reason.strip():
        raise UsageError("give a --reason: it is recorded with the rows and shown where they are dropped")
    record = Forgetting(
        forgetting=new_id(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        who=_user(),
        reason=reason.strip(),
        rows=asked.reach.sources,
        texts=asked.texts,
        reached=sorted(asked.reach.ids),
        tables=[held.table.manifest.ref for held in asked.reach.held if held.table.manifest],
    )
    write_forgetting(store, record)
    return record


def beyond(store: Store, found: Reach) -> list[str]:
    """Return the places that a store cannot reach: exports made of tables that hold the rows, and what always is."""
    held = {(one.table.system, one.table.stage, one.table.key) for one in found.held}
    told = []
    for system in store.systems():
        for record in exports(store, system):
            if {(ref.system, ref.stage, ref.key) for ref in (*record.tables, *record.reads)} & held:
                pushed = f", pushed to {record.pushed}" if record.pushed else ""
                told.append(f"export {record.path} (version {record.version}, {record.created:%Y-%m-%d}{pushed})")
    if isinstance(store.root, ObjectPath):
        told += [
            f"versions of removed objects, if the bucket of {store.root} keeps them",
            "files of models that other machines have fetched from it to NORMLOOM_CACHE",
        ]
    return [
        *told,
        "the source files themselves: builds drop the rows, the files keep them",
        f"copies of downloaded sources in {cache_dir() / 'sources'}",
        "Prefect's database: pages and logs of runs (removed 90 days after a run's end), and Ray's session logs",
        "reports, exports and copies made by other means, backups, and what hosted models' providers keep",
    ]


def _origin(store: Store, given: str) -> str:
    """Return the id of the one source row that a row is or is derived from."""
    found = trace(store, given)
    origins = [row.row_id for row in found.rows if not row.parents]
    if not origins:
        raise UsageError(f"row {found.row_id} has no source row in the newest tables: give its text instead")
    if len(origins) > 1:
        named = ", ".join(origins[:_NAMED]) + (", ..." if len(origins) > _NAMED else "")
        raise UsageError(
            f"row {found.row_id} is derived from {len(origins)} source rows ({named}): give the ids of those to forget"
        )
    return origins[0]


def _own_texts(store: Store, row_id: str) -> list[str]:
    """Return the hashes of the texts that only this row of a source's table has, or copies of it.

    A text has several words, or signs beyond ASCII: an identifier has neither.
    """
    hashes: list[str] = []
    for table in stored_tables(store):
        files = table.files("rows")
        if table.manifest is None or table.manifest.inputs or not files:
            continue
        rows = pl.read_parquet(files, glob=False)
        for row in rows.filter(row_id=row_id).iter_rows(named=True):
            for name in (name for name, dtype in rows.schema.items() if dtype == pl.String and name != "row_id"):
                if not _is_text(row[name]):
                    continue
                alike = rows.filter(pl.col(name) == row[name]).drop("row_id", "parents", "source_row", strict=False)
                if alike.hash_rows().n_unique() == 1:
                    hashes.append(text_hash(row[name]))
    return hashes


def _is_text(value: str | None) -> bool:
    plain = normalise(value or "")
    return len(plain) >= MIN_CHARS and (" " in plain or not plain.isascii())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"

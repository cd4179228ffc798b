"""Remove what holds forgotten rows, and prove by a scan of every file left in the store that none is there."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.object_path import ObjectPath, fetched_to
from normloom.core.rows.forgotten import FORGOTTEN, MIN_CHARS, DenyList, strings, text_hash
from normloom.core.rows.text import counted
from normloom.core.table import TableRef
from normloom.history.removal.gc import idle, remove_table
from normloom.history.resume import rebuild_commands
from normloom.labelling.book import FOLDER as LABELS
from normloom.labelling.take_out import answers_about, take_out
from normloom.lineage.reach import Held, reach, remade, source_rows, stored_tables
from normloom.store.files import remove_tree
from normloom.store.forgotten import FOLDER, Purging, deny_list, forgettings, write_purging
from normloom.store.latest import LATEST, released_key
from normloom.store.layout import BUILDS, CURRENT, LOCK, RUNNING, SUPERSEDED, scratch_of
from normloom.store.locks.hold import Hold
from normloom.store.store import Store

_NAMED = 3  # rows and tables that a message lists
_SKIPPED = frozenset({LOCK, RUNNING})


@dataclass
class Scan:
    """What a scan of a store's files found; `quotes` are the forgotten texts themselves, as far as files had them."""

    files: int = 0
    bytes: int = 0
    found: dict[Path, str] = field(default_factory=dict)
    quotes: set[str] = field(default_factory=set)


def purge(store: Store, *, also_newest: bool = False, texts: Sequence[str] = ()) -> Purging:
    """Remove all tables and files that hold what the deny list names, scan what is left, and record both.

    Within longer texts are found those forgotten texts that a table removed here held, and `texts`.
    Raises UsageError if nothing is on the list, StoreError while builds run, and if a newest table still holds
    some, naming the builds that replace it; with `also_newest` it is removed too, and a build makes it from scratch.
    """
    asked = forgettings(store)
    if not asked:
        raise UsageError(f"nothing has been forgotten in {store.root}: give row ids, or --text-file, and a --reason")
    deny = deny_list(store)
    with ExitStack() as stack:
        hold = Hold.of([stack.enter_context(idle(store, system)) for system in store.systems()])
        found = reach(store, source_rows(store, deny))
        ids = set(found.ids.union(*(one.reached for one in asked)))
        holding = [ref for one in asked for ref in one.tables]
        ids -= remade(store, found, ids, holding)
        before = scan(store, deny, ids, set())
        removed = _doomed(store, found.held, holding, before, also_newest=also_newest)
        for directory in removed:
            _remove(store, directory, hold)
        removed += take_out(store, deny, ids, _long(before.quotes | set(texts)))
        left = scan(store, deny, ids, before.quotes | set(texts))
        for path in [path for path in left.found if path.parent.name == BUILDS]:  # a failed build's error quotes a row
            hold.remove(path)
            removed.append(path)
            del left.found[path]
    record = Purging(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        forgettings=[one.forgetting for one in asked],
        removed=[_name(store, path) for path in removed],
        files=left.files,
        bytes=left.bytes,
        found=[f"{_name(store, path)}: {what}" for path, what in left.found.items()],
    )
    write_purging(store, record)
    return record


def scan(store: Store, deny: DenyList, ids: Set[str], quotes: Set[str]) -> Scan:
    """Look into every file of a store, hidden ones and ledgers too, for ids of rows and for texts, whole or quoted.

    Texts are known by their hashes; within longer texts and in files other than Parquet only `quotes` are found.
    """
    result = Scan(quotes=set(quotes))
    seen: set[tuple[int, int]] = set()
    long = _long(quotes)
    plain = [form.encode() for quote in long for form in _forms(quote)]
    for path in _files(store.root):
        stat = path.stat()
        if (stat.st_dev, stat.st_ino) in seen or path.name in _SKIPPED:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        result.files += 1
        result.bytes += stat.st_size
        if path.suffix == ".parquet":
            if what := _in_table(path, deny, ids, long, result.quotes):
                result.found[path] = what
        elif path.parent.name != FOLDER and _quotes(path, plain):
            result.found[path] = "quotes a forgotten text"
        elif answers := answers_about(path, ids):
            result.found[path] = f"{counted(answers, 'answer')} about forgotten rows"
    return result


def _long(quotes: Set[str]) -> list[str]:
    return [quote for quote in quotes if len(quote) >= MIN_CHARS]


def _doomed(
    store: Store, held: Sequence[Held], named: Sequence[TableRef], found: Scan, *, also_newest: bool
) -> list[Path]:
    """Return the directories of the tables to remove: those that hold any, or did when it was asked (`named`).

    And what interrupted builds left.
    """
    files = [path for path in found.found if path.relative_to(store.root).parts[0] != LABELS]  # answers are no tables
    systems = {one.table.system for one in held} | {path.relative_to(store.root).parts[0] for path in files}
    newest = {store.table_directory(table.ref) for system in store.systems() for table in store.newest(system)}
    holding = {one.table.directory for one in held}
    holding |= {store.table_directory(ref) for ref in named} - newest
    holding |= {store.root.joinpath(*path.relative_to(store.root).parts[:3]) for path in files}
    tables = [
        table
        for table in stored_tables(store)
        if table.directory in holding or (table.manifest is None and table.system in systems)
    ]
    if not also_newest and (kept := [table for table in tables if table.directory in newest]):
        builds = ", ".join(rebuild_commands(dict.fromkeys(table.system for table in kept), store))
        raise StoreError(
            f"{len(kept)} tables that no build has replaced hold forgotten rows ({', '.join(map(str, kept[:_NAMED]))}"
            f"{', ...' if len(kept) > _NAMED else ''}): run {builds} first, with the settings of the last build; "
            "--also-newest removes them instead"
        )
    return [table.directory for table in tables]


def _remove(store: Store, directory: Path, hold: Hold) -> None:
    """Remove a table, what points to it, and what this machine keeps of it outside the store."""
    stage, system = directory.parent, directory.parent.parent
    if released_key(store, system.name) == (stage.name, directory.name):
        hold.remove(system / LATEST)
    for pointer in [stage / CURRENT, *stage.glob(f"*/{SUPERSEDED}")]:
        if pointer.exists() and pointer.read_text(encoding="utf-8").strip() == directory.name:
            hold.remove(pointer)
    if not remove_table(directory, hold):
        raise StoreError(f"{directory} is being written by {(directory / LOCK).read_text()}: purge again when done")
    if isinstance(directory, ObjectPath):
        remove_tree(fetched_to(directory))
        remove_tree(scratch_of(directory))


def _name(store: Store, path: Path) -> str:
    return "/".join(path.relative_to(store.root).parts)


def _files(root: Path) -> Iterator[Path]:
    if isinstance(root, ObjectPath):
        yield from root.rglob("*")
        return
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink():
                yield path


def _in_table(path: Path, deny: DenyList, ids: Set[str], quotes: Sequence[str], raw: set[str]) -> str | None:
    """Say what a Parquet file has of rows and texts, None if nothing; texts found by hash are added to `raw`."""
    frame = pl.read_parquet(path, glob=False)
    if {"row_id", "reason"} <= set(frame.columns) and "parents" not in frame.columns:  # a ledger
        frame = frame.filter(pl.col("reason").ne_missing(FORGOTTEN))
    positions: set[int] = set()
    for series in frame.iter_columns():
        if series.name not in {"row_id", "parents"} and _has_text(series.dtype):
            positions |= _positions(series, deny, quotes, raw)
    if positions:
        named: list[str] = []
        if "row_id" in frame.columns:
            named = frame["row_id"].gather(sorted(positions)).drop_nulls().to_list()
        return f"forgotten texts in {counted(len(positions))} ({', '.join(named[:_NAMED])})"
    for name in {"row_id", "parents"} & set(frame.columns):
        column = frame[name].explode(empty_as_null=True, keep_nulls=True) if name == "parents" else frame[name]
        if column.dtype == pl.String and (hits := column.is_in(pl.Series(list(ids), dtype=pl.String).implode()).sum()):
            return f"{counted(int(hits), 'id')} of forgotten rows as {name}"
    return None


def _positions(series: pl.Series, deny: DenyList, quotes: Sequence[str], raw: set[str]) -> set[int]:
    """Return where a column has a forgotten text or quotes one; each text is looked at once."""
    if series.dtype == pl.String:
        hits = [value for value in series.unique() if _holds(value, deny, quotes, raw)]
        return set(series.is_in(pl.Series(hits, dtype=pl.String).implode()).arg_true()) if hits else set()
    values = series.to_list()
    return {position for position, value in enumerate(values) if _holds(value, deny, quotes, raw)}


def _holds(value: object, deny: DenyList, quotes: Sequence[str], raw: set[str]) -> bool:
    """Return whether a value has a forgotten text or quotes one."""
    hit = False
    for text in strings(value):
        if deny.texts and text_hash(text) in deny.texts:
            raw.add(text)
            hit = True
        elif any(quote in text for quote in quotes):
            hit = True
    return hit


def _has_text(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _has_text(dtype.inner)  # type: ignore[arg-type]  # an instance in a schema
    if isinstance(dtype, pl.Struct):
        return any(_has_text(one.dtype) for one in dtype.fields)  # type: ignore[arg-type]  # as above
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def _forms(text: str) -> set[str]:
    """Return a text as it is written in files: as it is, and in JSON with and without escapes beyond ASCII."""
    return {text, *(json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))}


def _quotes(path: Path, texts: Sequence[bytes]) -> bool:
    if not texts or not path.stat().st_size:
        return False
    if isinstance(path, ObjectPath):
        whole = path.read_bytes()
        return any(text in whole for text in texts)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(text) >= 0 for text in texts)

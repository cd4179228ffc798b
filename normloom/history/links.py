"""Links between tables that lead nowhere: what builds and tables name must be there, under the key it was made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache

import polars as pl

from normloom.core.table import Manifest, TableRef
from normloom.history.builds import BuildLock, locks
from normloom.labelling.book import FOLDER as LABELS
from normloom.labelling.book import books
from normloom.planning.keys import FORMAT, stage_key
from normloom.store.latest import LATEST, is_shown, released_key
from normloom.store.layout import MANIFEST, SUPERSEDED
from normloom.store.store import Store
from normloom.store.verify import PARENTS, Damage


def broken_links(store: Store, system: str | None = None) -> Iterator[Damage]:
    """Yield what the last builds name and the store does not have: tables, what they read, rows' parents, the release.

    Older tables may be gone: gc removes them. Of a whole store also files of people's answers that were changed or are
    gone. Raises StoreError for a damaged lock.
    """
    if system is None:
        for book in books(store):
            for file, problem in book.damage():
                yield _damage(LABELS, book.name, book.origin, file=file, problem=problem)
    for name in [system] if system else store.systems():
        for lock in locks(store, name, newest=1):
            yield from _of_build(lock, store)
        shown = released_key(store, name)
        if shown and not is_shown(store, name):
            yield _damage(name, *shown, file=LATEST, problem="leads to a release that is missing")
        for pointer in sorted((store.root / name).glob(f"*/*/{SUPERSEDED}")):
            key = pointer.read_text(encoding="utf-8").strip()
            if not (pointer.parents[1] / key).is_dir():
                problem = f"names the table {key}, which is missing"
                yield _damage(name, pointer.parents[1].name, pointer.parent.name, file=SUPERSEDED, problem=problem)


def _of_build(lock: BuildLock, store: Store) -> Iterator[Damage]:
    tables: dict[str, Manifest] = {}
    for stage, one in lock.stages.items():
        directory = store.directory(lock.system, stage, one.key)
        if not (directory / MANIFEST).exists():
            problem = f"is missing, and with it a table of build {lock.build}"
            yield _damage(lock.system, stage, one.key, file=MANIFEST, problem=problem)
        elif table := store.published(lock.system, stage, one.key):
            tables[stage] = table
    missing: dict[TableRef, str] = dict.fromkeys(lock.reads.values(), f"build {lock.build}")
    for table in tables.values():
        missing |= dict.fromkeys((*table.inputs, *table.sides), f"table {table.ref}")
    for ref, reader in missing.items():
        own = ref.system == lock.system and ref.stage in lock.stages and lock.stages[ref.stage].key == ref.key
        if not own and not (store.table_directory(ref) / MANIFEST).exists():
            yield _damage(ref.system, ref.stage, ref.key, file=MANIFEST, problem=f"is missing, and {reader} reads it")
    for table in tables.values():
        fields = table.key_fields
        if fields.get("format") == FORMAT and stage_key(fields, remake=table.remake) != table.key:
            problem = "was edited: its key is not that of its fields"
            yield _damage(table.system, table.stage, table.key, file=MANIFEST, problem=problem)
    yield from _orphans(tables, store)


def _orphans(tables: Mapping[str, Manifest], store: Store) -> Iterator[Damage]:
    """Yield tables with rows whose parents are in no table that they were made from."""

    @cache
    def upstream(ref: TableRef) -> frozenset[TableRef]:
        table = store.published(ref.system, ref.stage, ref.key)
        reads = (*table.inputs, *table.sides) if table else ()
        return frozenset(reads).union(*map(upstream, reads))

    for table in tables.values():
        with suppress(pl.exceptions.PolarsError, OSError):  # of damaged files, which have been named
            yield from _orphans_of(table, upstream(table.ref), store)


def _orphans_of(table: Manifest, upstream: Iterable[TableRef], store: Store) -> Iterator[Damage]:
    if table.inputs:
        parents = _column(table, store, "parents").explode(empty_as_null=True, keep_nulls=True).drop_nulls().unique()
        for ref in dict.fromkeys([*table.inputs, *table.sides, *sorted(upstream, key=str)]):
            if parents.is_empty():
                break
            source = store.published(ref.system, ref.stage, ref.key)
            if source is None:
                return  # said before
            parents = parents.filter(~parents.is_in(_column(source, store, "row_id").implode()))
        if not parents.is_empty():
            problem = f"of its rows are missing from all tables upstream: {len(parents):,}, such as {parents[0]}"
            yield _damage(table.system, table.stage, table.key, file=PARENTS, problem=problem)


def _column(table: Manifest, store: Store, name: str) -> pl.Series:
    files = [path for path, _ in table.files(store.table_directory(table.ref))]
    return pl.scan_parquet(files, glob=False).select(name).collect()[name]


def _damage(system: str, stage: str, key: str, *, file: str, problem: str) -> Damage:
    return Damage(system=system, stage=stage, key=key, part=None, file=file, problem=problem)

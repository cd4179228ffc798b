"""Everything derived from rows, in every table of a store and not only in the newest: what a take-down has to reach.

Row ids outlive rebuilds, so the same ids are looked for in old tables, newest ones and what interrupted builds left.
An id may also outlive what the row was derived from (`through`): a row is reached by the rows that its own table reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from normloom.core.rows.forgotten import FORGOTTEN, DenyList
from normloom.core.table import KINDS, Kind, Manifest, PartRecord, TableRef
from normloom.lineage.trained import models_of
from normloom.store.forgotten import SourceRow
from normloom.store.layout import BUILDS
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table with its parts, published or not (`manifest` is None)."""

    system: str
    stage: str
    key: str
    directory: Path
    parts: Sequence[PartRecord]
    manifest: Manifest | None

    def __str__(self) -> str:
        return f"{self.system}/{self.stage}/{self.key}"

    def files(self, kind: Kind) -> list[Path]:
        """Return the files of one kind that hold anything."""
        return [self.directory / part.files[kind].name for part in self.parts if part.files[kind].rows]

    def ids(self, kind: Kind) -> pl.DataFrame:
        """Return the column `row_id`; of rows also `parents`, of what was dropped also `reason`."""
        columns = {"rows": ["row_id", "parents"], "dropped": ["row_id", "reason"], "quarantined": ["row_id"]}[kind]
        files = self.files(kind)
        return pl.scan_parquet(files, glob=False).select(columns).collect() if files else pl.DataFrame()


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a table holds of rows and of everything derived from them.

    `newest`: no build has replaced it. `learned`: rows that a model, its product, was trained on. `through`: the model
    or table by which it depends on such training, empty if it does not.
    """

    table: StoredTable
    newest: bool
    rows: int = 0
    dropped: int = 0
    quarantined: int = 0
    learned: int = 0
    through: str = ""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Source rows, the ids of everything derived from them, and the tables that hold any, upstream before downstream.

    `rows` has the derived ids by table.
    """

    sources: Sequence[SourceRow]
    ids: frozenset[str]
    held: Sequence[Held]
    rows: Mapping[str, Set[str]] = field(default_factory=dict)

    def newest(self) -> list[Held]:
        """Return the tables that no build has replaced."""
        return [held for held in self.held if held.newest]


def stored_tables(store: Store) -> list[StoredTable]:
    """Return all tables of a store, oldest first, and after them what is not published."""
    found = [table for system in store.systems() for table in _tables(store, system)]
    return sorted(found, key=lambda table: (table.manifest is None, table.manifest.created if table.manifest else ""))


def source_rows(store: Store, deny: DenyList) -> list[SourceRow]:
    """Return the rows of all sources' tables that a deny list names by id or text."""
    found: dict[str, SourceRow] = {}
    for table in stored_tables(store):
        if table.manifest is None or table.manifest.inputs:
            continue
        for path in table.files("rows"):
            for row in pl.read_parquet(path, glob=False).iter_rows(named=True):
                if deny.why(row) is not None:
                    found[row["row_id"]] = SourceRow(system=table.system, stage=table.stage, row_id=row["row_id"])
    return list(found.values())


def reach(store: Store, sources: Iterable[SourceRow]) -> Reach:
    """Return everything derived from rows of sources."""
    rows, tables = list(sources), stored_tables(store)
    spread = _Spread(tables, {row.row_id for row in rows})
    newest = {(ref.system, ref.stage, ref.key) for ref in _newest(store)}
    held = [
        replace(found, newest=(found.table.system, found.table.stage, found.table.key) in newest)
        for found in _held(tables, spread)
    ]
    return Reach(sources=rows, ids=frozenset(spread.everywhere), held=held, rows=spread.reached)


def remade(store: Store, found: Reach, ids: Set[str], holding: Iterable[TableRef]) -> set[str]:
    """Return those of some ids that rows have which were made again without what was reached.

    They are in published tables, not reached there, and no table of `holding`, which held what was reached.
    """
    known = {str(ref) for ref in holding}
    made: set[str] = set()
    for table in stored_tables(store):
        if table.manifest and str(table.manifest.ref) not in known:
            made |= (_ids(table, "rows") & ids) - found.rows.get(str(table), frozenset())
    return made


def _tables(store: Store, system: str) -> Iterator[StoredTable]:
    for stage in sorted((store.root / system).glob("[!.]*/")):
        if stage.name == BUILDS or stage.is_symlink():
            continue
        for directory in sorted(stage.glob("[!.]*/")):
            manifest = store.published(system, stage.name, directory.name)
            parts = manifest.parts if manifest else list(store.parts(directory, verify=False).values())
            yield StoredTable(
                system=system,
                stage=stage.name,
                key=directory.name,
                directory=directory,
                parts=parts,
                manifest=manifest,
            )


def _newest(store: Store) -> Iterator[TableRef]:
    for system in store.systems():
        yield from (manifest.ref for manifest in store.newest(system))


class _Spread:
    """Which rows of tables are, or are derived from, some rows: `reached` by table, `everywhere` all together."""

    def __init__(self, tables: Sequence[StoredTable], sources: Set[str]) -> None:
        frames = {str(table): table.ids("rows") for table in tables}
        self._ids = {name: set() if rows.is_empty() else set(rows["row_id"]) for name, rows in frames.items()}
        self._reads = {
            str(table): [str(ref) for ref in (*table.manifest.inputs, *table.manifest.sides)] if table.manifest else []
            for table in tables
        }
        self.everywhere = set(sources)
        self.reached = {name: ids & sources for name, ids in self._ids.items()}
        families = {
            name: rows.explode("parents", empty_as_null=True, keep_nulls=True)
            for name, rows in frames.items()
            if not rows.is_empty()
        }
        before = -1
        while (now := sum(map(len, self.reached.values()))) > before:  # over all tables until none is new
            before = now
            for name, rows in families.items():
                own = set(rows.filter(_among("parents", self.read_by(name)))["row_id"])
                self.reached[name] |= own
                self.everywhere |= own

    def read_by(self, table: str) -> set[str]:
        """Return what counts as reached for a table: all, but ids that rows which it reads have without being."""
        reads = [name for name in self._reads[table] if name in self._ids]
        there = set[str]().union(*(self.everywhere & self._ids[name] for name in reads))
        return self.everywhere - there.difference(*(self.reached[name] for name in reads))


def _held(tables: Sequence[StoredTable], spread: _Spread) -> list[Held]:
    found: list[Held] = []
    counts: dict[str, dict[Kind, set[str]]] = {}
    tainted: dict[str, str] = {}  # table -> by which it depends on training
    for table in tables:
        read = spread.read_by(str(table))
        here = counts[str(table)] = {kind: _ids(table, kind) & read for kind in KINDS}
        here["rows"] = set(spread.reached[str(table)])
        learned, through = 0, ""
        if manifest := table.manifest:
            reads = [str(ref) for ref in (*manifest.inputs, *manifest.sides)]
            through = next((one for one in map(str, models_of(manifest)) if one in tainted), "") or next(
                (one for one in reads if tainted.get(one)), ""
            )
            if manifest.attached:
                learnt = set().union(*(counts[str(ref)]["rows"] for ref in manifest.inputs if str(ref) in counts))
                learned = len(learnt - here["dropped"] - here["quarantined"])
            if learned or through:
                tainted[str(table)] = through
        if learned or through or any(here.values()):
            numbers = {kind: len(here[kind]) for kind in KINDS}
            found.append(Held(table=table, newest=False, learned=learned, through=through, **numbers))
    return found


def _ids(table: StoredTable, kind: Kind) -> set[str]:
    """Return the ids of a table or ledger; entries that tell of a row taken back before hold nothing of it."""
    entries = table.ids(kind)
    if entries.is_empty():
        return set()
    if kind == "dropped":
        entries = entries.filter(pl.col("reason").ne_missing(FORGOTTEN))
    return set(entries["row_id"].drop_nulls())


def _among(column: str, ids: Set[str]) -> pl.Expr:
    return pl.col(column).is_in(pl.Series(list(ids), dtype=pl.String).implode())

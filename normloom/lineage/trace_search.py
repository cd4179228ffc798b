"""Where the rows of a trace are: passes over the newest tables, from one table to those made of it, or back.

Parents of a row are rows of tables that its own was made from, so each table is asked once for rows by their id and
once by their parents, when all that can be asked of it is known. Ids and parents are read first, and whole rows only
from the parts that have some: a trace takes time in proportion to the tables' rows, and memory to what it finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from normloom.core.errors import UsageError
from normloom.core.table import KINDS, Kind, Manifest
from normloom.store.store import Store
from normloom.store.views import reading

MIN_PREFIX = 6
CANDIDATES_NAMED = 8

Record = tuple[Literal["row", "ledger", "fate"], int, str, str]  # role, position, id, and JSON or the parent of a fate

# The few ids at hand are on the right, where DuckDB builds its hash table; left to itself it may hash the table.
_AS_WRITTEN = "SET disabled_optimizers = 'join_order,build_side_probe_side'"

_HAVING = "SELECT row_id, {position} AS position, {aside} AS aside FROM {tables} WHERE starts_with(row_id, $prefix)"
_FIND = "SELECT row_id, arg_min(position, aside) FROM ({having}) GROUP BY row_id ORDER BY row_id LIMIT {limit}"
_PARTS = """
    SELECT DISTINCT filename FROM (SELECT filename, {key} AS id FROM {tables})
    SEMI JOIN (SELECT unnest($ids) AS id) USING (id)"""
_ROWS = """
    SELECT entry.row_id, {parents}, to_json(entry) FROM (SELECT entry, {key} AS id FROM {tables} entry)
    SEMI JOIN (SELECT unnest($ids) AS id) USING (id)"""

_Key = Literal["row_id", "unnest(parents)", "winner"]


@dataclass(frozen=True)
class Relation:
    """The rows or a ledger of a newest table; `upstream` has the positions of all tables that it was made from."""

    position: int
    system: str
    stage: str
    kind: Kind
    files: tuple[str, ...]
    upstream: frozenset[int]


def relations(store: Store, system: str | None) -> list[Relation]:
    """Return the newest tables, none before those it was made from, and the ledgers that hold anything.

    Raises UsageError if there are none.
    """
    manifests = [manifest for name in ([system] if system else store.systems()) for manifest in store.newest(name)]
    if not manifests:
        store.require(system)
        raise UsageError(f"no tables{f' of {system}' if system else ''} in {store.root}: run normloom build first")
    ordered = _in_order({(manifest.system, manifest.stage): manifest for manifest in manifests})
    positions = {id(manifest): position for position, (manifest, _) in enumerate(ordered)}
    present: list[tuple[Manifest, Kind]] = [(manifest, "rows") for manifest, _ in ordered]
    present += [(manifest, kind) for manifest, _ in ordered for kind in KINDS[1:] if manifest.count(kind)]
    return [
        Relation(
            position=position,
            system=manifest.system,
            stage=manifest.stage,
            kind=kind,
            files=tuple(str(path) for path, _ in manifest.files(store.table_directory(manifest.ref), kind)),
            upstream=frozenset(positions[id(one)] for one in ordered[positions[id(manifest)]][1]),
        )
        for position, (manifest, kind) in enumerate(present)
    ]


def _in_order(manifests: Mapping[tuple[str, str], Manifest]) -> list[tuple[Manifest, list[Manifest]]]:
    """Return each table with all those upstream of it, which come before it unless a flow was turned around."""

    def reads(manifest: Manifest) -> list[Manifest]:
        names = [(ref.system, ref.stage) for ref in (*manifest.inputs, *manifest.sides)]
        return [manifests[name] for name in names if name in manifests]

    upstream: dict[int, list[Manifest]] = {}
    for manifest in manifests.values():
        known = {id(one): one for one in reads(manifest)}
        pending = list(known.values())
        for one in pending:  # grows as it is walked
            further = [other for other in reads(one) if id(other) not in known]
            known.update({id(other): other for other in further})
            pending += further
        upstream[id(manifest)] = pending
    ordered = sorted(manifests.values(), key=lambda manifest: len(upstream[id(manifest)]))
    return [(manifest, upstream[id(manifest)]) for manifest in ordered]


class Search:
    """One trace over the relations; its records accumulate what is found."""

    def __init__(self, among: Sequence[Relation], position: Path) -> None:
        self._all = among
        self._tables = [relation for relation in among if relation.kind == "rows"]
        self._connection = reading(position, duckdb.connect())
        self._connection.execute(_AS_WRITTEN)
        self.records: list[Record] = []

    def find(self, prefix: str, store: Store) -> tuple[str, int]:
        """Return the one row id that begins with the prefix, and the position of a relation that has it."""
        if len(prefix) < MIN_PREFIX:
            raise UsageError(f"{prefix!r} is too short for a row id: give at least {MIN_PREFIX} of its 32 digits")
        having = " UNION ALL ".join(
            _HAVING.format(position=relation.position, aside=relation.kind != "rows", tables=_reading(relation.files))
            for relation in self._all
        )
        statement = _FIND.format(having=having, limit=CANDIDATES_NAMED + 1)
        found = self._connection.execute(statement, {"prefix": prefix}).fetchall()
        if len(found) == 1:
            return found[0]
        if not found:
            stages = dict.fromkeys(f"{relation.system}/{relation.stage}" for relation in self._all)
            raise UsageError(
                f"no row id begins with {prefix!r} in the newest tables in {store.root}, nor in what they dropped or "
                f"quarantined: looked in {', '.join(stages)}"
            )
        named = [f"{row_id} ({self._all[position].stage})" for row_id, position in found[:CANDIDATES_NAMED]]
        more = " and others" if len(found) > CANDIDATES_NAMED else ""
        raise UsageError(f"{prefix!r} matches more than one row id: {', '.join(named)}{more}; give more digits")

    def backward(self, start: str, position: int) -> None:
        """Record the rows that lead to a row, their siblings, where those ended, and the ledgers of them all."""
        path, families = self._ancestors(start, position)
        self._ledgers(path | self._fates(path, families), winners=path)

    def forward(self, start: str, position: int) -> None:
        """Record a row, everything derived from it, and the ledgers of all these rows."""
        path = {start}
        reached: dict[int, Set[str]] = {}
        for table in self._tables:
            ids: set[str] = {start} if table.position == position else set()
            unlisted = (
                {start} if self._all[position].kind != "rows" else set()
            )  # its table may not be the newest any more
            parents = _of(table.upstream, reached) | unlisted
            found = self._rows(table, "unnest(parents)", parents) if parents else {}
            found |= self._rows(table, "row_id", ids) if ids else {}
            self.records += [("row", table.position, row_id, row) for row_id, (_, row) in found.items()]
            reached[table.position] = found.keys()
            path |= found.keys()
        self._ledgers(path, winners=path)

    def _ancestors(self, start: str, position: int) -> tuple[set[str], dict[int, set[str]]]:
        """Record the rows on the way back; return their ids, and the parents of those in each table."""
        path, wanted = {start}, {start}
        families: dict[int, set[str]] = {}
        reach = {position}
        for table in reversed(self._tables):
            if not wanted or table.position not in reach:
                continue
            found = self._rows(table, "row_id", wanted)
            self.records += [("row", table.position, row_id, row) for row_id, (_, row) in found.items()]
            families[table.position] = {parent for parents, _ in found.values() for parent in parents}
            wanted = (wanted - found.keys()) | (families[table.position] - path)
            path |= families[table.position]
            reach |= table.upstream
        return path, families

    def _fates(self, path: Set[str], families: Mapping[int, Set[str]]) -> set[str]:
        """Record siblings, and what became of them while one row was made of one; return the ids of all these."""
        fates: dict[int, set[str]] = {}
        for table in self._tables:
            shared, followed = families.get(table.position, set()), _of(table.upstream, fates)
            if not shared and not followed:
                continue
            here = fates[table.position] = set()
            for row_id, (parents, row) in self._rows(table, "unnest(parents)", shared | followed).items():
                if row_id in path:
                    continue
                if not shared.isdisjoint(parents):
                    self.records.append(("row", table.position, row_id, row))
                    here.add(row_id)
                if len(parents) == 1 and parents[0] in followed:
                    self.records.append(("fate", table.position, row_id, parents[0]))
                    here.add(row_id)
        return set().union(*fates.values())

    def _ledgers(self, ids: Set[str], *, winners: Set[str]) -> None:
        """Record what was taken out of rows, or lost to one."""
        for ledger in self._all[len(self._tables) :]:
            found = self._matching(ledger, "row_id", ids)
            if ledger.kind == "dropped":
                found += [entry for entry in self._matching(ledger, "winner", winners) if entry[0] not in ids]
            self.records += [("ledger", ledger.position, row_id, row) for row_id, _, row in found]

    def _rows(self, table: Relation, key: _Key, ids: Iterable[str]) -> dict[str, tuple[list[str], str]]:
        """Return rows of a table by their id: parents and JSON."""
        return {row_id: (parents or [], row) for row_id, parents, row in self._matching(table, key, ids)}

    def _matching(self, relation: Relation, key: _Key, ids: Iterable[str]) -> list[tuple[str, list[str] | None, str]]:
        """Return id, parents and JSON of the rows that have one of the ids as their key."""
        given = {"ids": list(ids)}
        parts = self._connection.execute(_PARTS.format(key=key, tables=_reading(relation.files)), given).fetchall()
        if not parts:
            return []
        tables = _reading(name for (name,) in parts)
        parents = "entry.parents" if relation.kind == "rows" else "NULL"
        return self._connection.execute(_ROWS.format(parents=parents, key=key, tables=tables), given).fetchall()


def _of(positions: Iterable[int], found: Mapping[int, Set[str]]) -> set[str]:
    return set().union(*(found[position] for position in positions if position in found))


def _reading(files: Iterable[str]) -> str:
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return f"read_parquet([{quoted}], hive_partitioning = false)"

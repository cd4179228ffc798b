"""The history of one row, from the newest tables and their ledgers: its ancestors or descendants."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import duckdb

from normloom.core.errors import StoreError
from normloom.lineage.trace_search import Record, Relation, Search, relations
from normloom.lineage.trained import Trained, learners, writers
from normloom.readers.records import one_line
from normloom.store.store import Store

Departure = Literal["dropped", "quarantined"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table; `values` holds its columns without `row_id` and `parents`."""

    stage: str
    row_id: str
    parents: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What a stage took out: one of its input rows, or an attempt at one (`row_id`).

    `rule` names the check of a quarantined row; `winner` the row that a dropped one lost to, if there is one.
    """

    stage: str
    kind: Departure
    row_id: str
    rule: str | None
    reason: str | None
    winner: str | None
    payload: Any


@dataclass(frozen=True, kw_only=True)
class Sibling:
    """Another row that the same stage made of a parent that the rows `beside` have too.

    It is followed as long as a stage makes one row of it alone: `ledger` says where it was taken out, `reached`
    names the stages where it is last found.
    """

    row: Row
    beside: tuple[str, ...]
    reached: tuple[str, ...]
    ledger: tuple[LedgerEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The rows on the way from one row back to what was ingested, or forward to everything derived from it.

    `rows` begins with the row itself, nearer ones first; without rows it is known to the ledger only. `edges` are
    pairs of parent and child; `ledger` holds what was taken out of the rows or lost to one of them. Tracing
    backward, `siblings` tells what became of other rows of the same parents, and `missing` names parents that the
    newest tables no longer have. `models` are trained models on the way: backward those that wrote rows, forward those
    that learned from rows.
    """

    system: str
    row_id: str
    forward: bool
    rows: tuple[Row, ...]
    edges: tuple[tuple[str, str], ...]
    ledger: tuple[LedgerEntry, ...]
    siblings: tuple[Sibling, ...]
    missing: tuple[str, ...]
    models: tuple[Trained, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the trace as JSON types."""
        return {
            "system": self.system,
            "row_id": self.row_id,
            "direction": "forward" if self.forward else "backward",
            "rows": [asdict(row) for row in self.rows],
            "edges": [{"parent": parent, "child": child} for parent, child in self.edges],
            "ledger": [asdict(entry) for entry in self.ledger],
            "siblings": [
                {
                    **asdict(sibling.row),
                    "beside": sibling.beside,
                    "reached": sibling.reached,
                    "ledger": [asdict(entry) for entry in sibling.ledger],
                }
                for sibling in self.siblings
            ],
            "missing": list(self.missing),
            "models": [asdict(model) for model in self.models],
        }


def trace(store: Store, row_id: str, *, system: str | None = None, forward: bool = False) -> Trace:
    """Return the history of the row whose id begins with `row_id`, over the newest table of each stage.

    Backward to the ingested rows, or with `forward` to every row derived from it. Raises UsageError if no row
    or more than one is meant.
    """
    among = relations(store, system)
    try:
        search = Search(among, store.root)
        found, position = search.find(row_id, store)
        if forward:
            search.forward(found, position)
        else:
            search.backward(found, position)
    except duckdb.Error as error:
        raise StoreError(
            f"the tables in {store.root} cannot be read: {one_line(error)}; rerun the command, or rebuild them"
        ) from error
    whole = _assembled(found, among[position].system, among, search.records, forward=forward)
    met = {row.row_id for row in whole.rows}
    way: dict[tuple[str, str], set[str]] = {}
    for role, where, name, _ in search.records:
        if role == "row" and name in met:
            way.setdefault((among[where].system, among[where].stage), set()).add(name)
    return replace(whole, models=tuple(learners(store, way) if forward else writers(store, way)))


def _assembled(
    row_id: str, system: str, among: Sequence[Relation], records: Iterable[Record], *, forward: bool
) -> Trace:
    rows: dict[str, Row] = {}
    ledger: dict[str, list[LedgerEntry]] = {}
    made_alone: dict[str, dict[str, list[str]]] = {}  # parent -> stage -> rows made of it alone
    for role, position, name, content in sorted(records, key=lambda record: (record[1], str(record))):
        relation = among[position]
        if role == "row":
            rows[name] = _row(relation, content)
        elif role == "ledger":
            ledger.setdefault(name, []).append(_entry(relation, content))
        else:
            made_alone.setdefault(content, {}).setdefault(relation.stage, []).append(name)
    path, edges = _walk(row_id, rows, forward=forward)
    missing = () if forward else tuple(dict.fromkeys(parent for parent, _ in edges if parent not in rows))
    way = {row_id, *path, *missing}
    families: dict[tuple[str, str], list[str]] = {}  # stage, parent -> rows on the way
    for name in path:
        for parent in rows[name].parents:
            families.setdefault((rows[name].stage, parent), []).append(name)
    others = [row for name, row in rows.items() if name not in way]
    return Trace(
        system=system,
        row_id=row_id,
        forward=forward,
        rows=tuple(rows[name] for name in path),
        edges=edges,
        ledger=tuple(entry for entries in ledger.values() for entry in entries if way & {entry.row_id, entry.winner}),
        siblings=tuple(_sibling(row, families, made_alone, ledger) for row in others),
        missing=missing,
    )


def _walk(start: str, rows: Mapping[str, Row], *, forward: bool) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return the ids of the rows on the way, nearer ones first, and the edges between them."""
    beyond: dict[str, list[str]] = {}
    for name, row in rows.items():
        for parent in dict.fromkeys(row.parents):
            here, there = (parent, name) if forward else (name, parent)
            beyond.setdefault(here, []).append(there)
    path = [start] if start in rows else []
    seen = set(path)
    edges = []
    for here in path:  # grows as it is walked
        for there in beyond.get(here, ()):
            edges.append((here, there) if forward else (there, here))
            if there in rows and there not in seen:
                seen.add(there)
                path.append(there)
    return path, tuple(edges)


def _sibling(
    row: Row,
    families: Mapping[tuple[str, str], Sequence[str]],
    made_alone: Mapping[str, Mapping[str, Sequence[str]]],
    ledger: Mapping[str, Sequence[LedgerEntry]],
) -> Sibling:
    beside = (name for parent in row.parents for name in families.get((row.stage, parent), ()))
    reached: list[str] = []
    entries: list[LedgerEntry] = []
    followed = [(row.stage, row.row_id)]
    for stage, name in followed:  # grows as it is walked
        onward = [(later, made[0]) for later, made in made_alone.get(name, {}).items() if len(made) == 1]
        followed += onward
        entries += ledger.get(name, ())
        if not onward and name not in ledger:
            reached.append(stage)
    return Sibling(
        row=row,
        beside=tuple(dict.fromkeys(beside)),
        reached=tuple(dict.fromkeys(reached)),
        ledger=tuple(entries),
    )


def _row(relation: Relation, content: str) -> Row:
    values = _parsed(content)
    return Row(
        stage=relation.stage, row_id=values.pop("row_id"), parents=tuple(values.pop("parents") or ()), values=values
    )


def _entry(relation: Relation, content: str) -> LedgerEntry:
    columns = _parsed(content)
    try:
        payload = _parsed(columns["payload"] or "null")
    except json.JSONDecodeError:  # a source's record may be kept as its bare text
        payload = columns["payload"]
    return LedgerEntry(
        stage=relation.stage,
        kind=relation.kind,  # type: ignore[arg-type]  # not rows
        row_id=columns["row_id"],
        rule=columns.get("rule"),
        reason=columns["reason"],
        winner=columns.get("winner"),
        payload=payload,
    )


def _parsed(text: str) -> Any:
    """Return the value of a JSON text; numbers that are not finite, which JSON has not, become None."""
    return json.loads(text, parse_constant=lambda _: None)

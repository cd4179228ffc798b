"""Which parts of a table that is to be made need not be made: those made of the same rows by an earlier build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import polars as pl

from normloom.core.errors import StoreError
from normloom.core.stage import Stage
from normloom.core.table import Manifest, PartRecord, TableRef
from normloom.planning.incremental import earlier_table, taken_over, winners
from normloom.planning.new_table import NewTable
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How many parts a table will have, and those of them that are there; `rows` is what these read."""

    parts: int
    done: int
    rows: int


def kept_parts(table: NewTable, done: Mapping[int, PartRecord]) -> tuple[int, list[PartRecord]]:
    """Return how many parts a table has whose inputs are there, and those that a build takes over or finds `done`."""
    earlier = earlier_table(table.store, table.system, table.stage, table.fields)
    jobs = table.jobs(None, earlier, done)
    bounds = {index: (part.start, part.stop) for index, part in done.items()}
    found = {job.index: done[job.index] for job in jobs if bounds.get(job.index) == (job.start, job.stop)}
    left = [job for job in jobs if job.index not in found]
    if earlier and left:
        there = taken_over(table.store, earlier, left, stage=table.stage, files=table.files, checksums=table.checksums)
        found |= {part.index: part for part in there}
    return len(jobs), list(found.values())


def kept_without(stage: Stage, table: Manifest, gone: Set[str], store: Store) -> Kept | None:
    """Return the parts of a table that read none of the rows that are `gone`; None if nothing can be taken over.

    A guess: other rows may come in their place.
    """
    if stage.part_rows is None or not stage.inputs or stage.products:
        return None
    sides = table.sides[: len(stage.sides)]
    try:
        if not (stage.sides_on or stage.looks_up or stage.compares) and any(
            _among(_ids(store, ref), gone).any() for ref in sides
        ):
            return None
        inputs = pl.concat([_ids(store, ref) for ref in table.inputs])
        touched = _owners(stage, table, sides, gone, store)
    except StoreError:  # removed or damaged meanwhile
        return None
    hit = _among(inputs, gone | touched)
    directory = store.table_directory(table.ref)
    left = [
        part
        for part in table.parts
        if part.reads
        and part.settled
        and not hit.slice(part.start, part.stop - part.start).any()
        and not (stage.compares and winners(directory, part) & gone)
    ]
    return Kept(parts=len(table.parts), done=len(left), rows=sum(part.stop - part.start for part in left))


def _owners(stage: Stage, table: Manifest, sides: Sequence[TableRef], gone: Set[str], store: Store) -> set[str]:
    """Return the input rows to which rows of side tables belong that are gone."""
    column = stage.looks_up[0] if stage.looks_up and sides else None
    if column and column in store.scan(table.inputs[0]).collect_schema():
        named = pl.concat([store.scan(ref).select("row_id", named=column).collect() for ref in table.inputs])
        return set(named.filter(_among(named["named"], gone))["row_id"])
    owner = column or stage.sides_on
    if not owner:
        return set()
    found: set[str] = set()
    for ref in sides[:1] if column else sides:
        rows = store.scan(ref).select("row_id", owner=owner).collect()
        found |= set(rows.filter(_among(rows["row_id"], gone))["owner"])
    return found


def _ids(store: Store, ref: TableRef) -> pl.Series:
    return store.scan(ref).select("row_id").collect()["row_id"]


def _among(ids: pl.Series, wanted: Set[str]) -> pl.Series:
    return ids.is_in(pl.Series(list(wanted), dtype=pl.String).implode())

"""What changed between two builds: stages, rows, values, and what was dropped or quarantined."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb

from normloom.core.errors import StoreError, UsageError
from normloom.core.table import FileRecord, Manifest, TableRef
from normloom.history.builds import BuildLock, StageLock
from normloom.lineage.table_diff import TableDiff, diff_tables
from normloom.planning.changes import compare_keys
from normloom.store.store import Store

State = Literal["added", "removed", "same", "reproduced", "changed"]
Side = Literal["before", "after"]
Counts = Mapping[str, tuple[int, int]]  # before and after, by reason or rule


@dataclass(frozen=True, kw_only=True)
class StageDiff:
    """How one stage differs between two builds.

    `state`: only the second build has it (added), only the first (removed), the same table (same), another key with
    the same content (reproduced), other content (changed). `gone` names the sides whose table is no longer in the
    store; what would have been read from it is left empty. `files` has the files of a product that differ, None where a
    build has not got one of that name. `refs` are both tables if they were compared.
    """

    stage: str
    state: State
    before: StageLock | None
    after: StageLock | None
    gone: Sequence[Side] = ()
    fields: Sequence[str] = ()
    dropped: Counts = field(default_factory=dict)
    quarantined: Counts = field(default_factory=dict)
    files: Mapping[str, tuple[FileRecord | None, FileRecord | None]] = field(default_factory=dict)
    table: TableDiff | None = None
    refs: tuple[TableRef, TableRef] | None = None


def diff(
    before: BuildLock, after: BuildLock, store: Store, *, examples: int = 3, tables: Collection[str] | None = None
) -> list[StageDiff]:
    """Return how each stage differs, in the order of the later build; raises UsageError for builds of two systems.

    Rows are compared of the stages in `tables` only, if it is given.
    """
    if before.system != after.system:
        raise UsageError(
            f"build {before.build} is of {before.system} and build {after.build} of {after.system}: "
            "give two builds of one system"
        )
    stages = dict.fromkeys([*after.stages, *before.stages])
    return [
        _stage(stage, before, after, store, examples if tables is None or stage in tables else None) for stage in stages
    ]


def changed_fields(before: Manifest, after: Manifest) -> list[str]:
    """Return the fields of the stage keys that differ, by their paths."""
    fields = [change.field for change in compare_keys(dict(before.key_fields), dict(after.key_fields))]
    return fields + (["remake"] if before.remake != after.remake else [])


def _stage(stage: str, before: BuildLock, after: BuildLock, store: Store, examples: int | None) -> StageDiff:
    old, new = before.stages.get(stage), after.stages.get(stage)
    state = _state(old, new)
    if state in ("added", "removed", "same") or old is None or new is None:
        return StageDiff(stage=stage, state=state, before=old, after=new)
    manifests = (
        store.published(before.system, stage, old.key),
        store.published(after.system, stage, new.key),
    )
    first, second = manifests
    if first is None or second is None:
        sides: tuple[Side, Side] = ("before", "after")
        gone = tuple(side for side, manifest in zip(sides, manifests, strict=True) if manifest is None)
        return StageDiff(stage=stage, state=state, before=old, after=new, gone=gone)
    table = None
    if state == "changed" and examples is not None:
        try:
            table = diff_tables(*_files(first, second, store), examples=examples)
        except duckdb.Error as error:
            raise StoreError(f"tables {first.ref} and {second.ref} cannot be compared: {error}") from error
    return StageDiff(
        stage=stage,
        state=state,
        before=old,
        after=new,
        fields=changed_fields(first, second),
        dropped=_both(first.dropped_by, second.dropped_by),
        quarantined=_both(first.quarantined_by, second.quarantined_by),
        files=changed_files(first, second),
        table=table,
        refs=(first.ref, second.ref),
    )


def _state(before: StageLock | None, after: StageLock | None) -> State:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if before.key == after.key:
        return "same"
    return "reproduced" if before.content == after.content else "changed"


def _files(before: Manifest, after: Manifest, store: Store) -> tuple[list[Path], list[Path]]:
    """Return the Parquet files that may differ; of those that both tables hold one stays, for the columns."""
    sums = [{part.files["rows"].checksum for part in manifest.parts} for manifest in (before, after)]
    shared = set(sorted(sums[0] & sums[1])[1:])

    def differing(manifest: Manifest) -> list[Path]:
        directory = store.table_directory(manifest.ref)
        records = [part.files["rows"] for part in manifest.parts]
        return [directory / record.name for record in records if record.checksum not in shared]

    return differing(before), differing(after)


def changed_files(before: Manifest, after: Manifest) -> dict[str, tuple[FileRecord | None, FileRecord | None]]:
    """Return the files of two products that differ, by name."""
    old, new = before.attached, after.attached
    pairs = {name: (old.get(name), new.get(name)) for name in sorted({*old, *new})}
    same = {name for name, (was, now) in pairs.items() if was and now and was.checksum == now.checksum}
    return {name: pair for name, pair in pairs.items() if name not in same}


def _both(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys([*after, *before])}

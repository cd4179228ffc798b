"""Two builds side by side: which stages differ, and their rows one by one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import duckdb

from normloom.core.errors import StoreError, UsageError
from normloom.history.builds import BuildLock, find_build, locks
from normloom.lineage.diff import diff
from normloom.lineage.table_diff import differing_rows
from normloom.store.store import Store
from normloom.view.rows import cell

NEWEST = 50  # builds offered


def builds(store: Store, system: str) -> list[dict[str, Any]]:
    """Return the newest builds of a system, the newest first."""
    found = reversed(locks(store, system, newest=NEWEST))
    return [{"build": lock.build, "profile": lock.profile, "stages": len(lock.stages)} for lock in found]


def stages(store: Store, system: str, before: str, after: str) -> list[dict[str, Any]]:
    """Return how each stage differs between two builds, without reading their rows. Raises UsageError."""
    first, second = _both(store, system, before, after)
    return [
        {
            "stage": stage.stage,
            "state": stage.state,
            "before": stage.before.model_dump(include={"rows", "dropped", "quarantined"}) if stage.before else None,
            "after": stage.after.model_dump(include={"rows", "dropped", "quarantined"}) if stage.after else None,
            "because": list(stage.fields),
            "gone": list(stage.gone),
        }
        for stage in diff(first, second, store, tables=())
    ]


def rows(
    store: Store, system: str, before: str, after: str, stage: str, *, offset: int = 0, limit: int = 50
) -> dict[str, Any]:
    """Return one page of the rows of a stage that differ: added, removed, or changed with both values by column."""
    first, second = _both(store, system, before, after)
    old, new = first.stages.get(stage), second.stages.get(stage)
    if old is None or new is None:
        raise UsageError(f"stage {stage!r} is not in both builds; choose one that is")
    tables = [store.published(system, stage, key) for key in (old.key, new.key)]
    if tables[0] is None or tables[1] is None:
        raise UsageError(f"a table of stage {stage!r} is no longer in the store: its rows cannot be compared")
    files = [[path for path, _ in table.files(store.table_directory(table.ref))] for table in tables if table]
    try:
        found = differing_rows(*files, offset=offset, limit=limit + 1)
    except duckdb.Error as error:
        raise StoreError(f"the tables of stage {stage!r} cannot be compared: {error}") from error
    shown = [dataclasses.asdict(row) for row in found[:limit]]
    for row in shown:
        row["values"] = {name: [cell(one, longest=None) for one in pair] for name, pair in row["values"].items()}
    return {"rows": json.loads(json.dumps(shown)), "more": len(found) > limit}


def _both(store: Store, system: str, before: str, after: str) -> tuple[BuildLock, BuildLock]:
    return find_build(store, before, system=system), find_build(store, after, system=system)

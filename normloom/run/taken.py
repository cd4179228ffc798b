"""The tables that a partial build takes as they stand."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.core.errors import StoreError, UsageError
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.steps.selection import Selection
from normloom.store.store import Store


def tables_taken(system: str, selection: Selection, stages: Sequence[Stage], store: Store) -> dict[str, Manifest]:
    """Return the tables that a partial build takes as they stand, by stage.

    Raises UsageError for a stage that has no table yet, and StoreError for a table that cannot be read.
    """
    chosen = selection.chosen(stages)
    taken: dict[str, Manifest] = {}
    for stage in selection.needed(stages):
        if stage.name not in chosen:
            manifest = store.manifest(stage.table) if stage.table else store.current(system, stage.name)
            if manifest is None:
                if damaged := store.why_unreadable(system, stage.name):
                    raise StoreError(damaged)
                raise UsageError(
                    f"stage {stage.name!r} has no table yet, but a stage to build reads it: "
                    f"build it first, with --from {stage.name} or without --only and --from"
                )
            taken[stage.name] = manifest
    return taken

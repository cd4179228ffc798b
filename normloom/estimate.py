"""How long stages will take, from what earlier tables took."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import ceil

from normloom.models.protocol import ModelSpec
from normloom.resources import Resources
from normloom.stage import Stage
from normloom.store import MANIFEST, Store
from normloom.table import Manifest


def history(store: Store, system: str, stage: str) -> list[Manifest]:
    """Return all tables of a stage that are in the store, oldest first."""
    keys = [path.parent.name for path in (store.root / system / stage).glob(f"*/{MANIFEST}")]
    found = [manifest for key in keys if (manifest := store.published(system, stage, key))]
    return sorted(found, key=lambda manifest: manifest.created)


def stage_seconds(stage: Stage, rows: int, basis: Manifest, *, actors: int) -> float:
    """Return the seconds that a stage will take for `rows` input rows at the rate of an earlier table.

    The rate is that of the parts, without loading the model, waiting for it and checking the table; parts of
    a stage with a model are shared among the actors. A stage that reads no table takes what it took.
    """
    worked = sum(part.seconds for part in basis.parts)
    if not stage.inputs:
        return worked
    if not basis.rows_in:
        return 0.0
    parts = ceil(rows / stage.part_rows) if stage.part_rows else 1
    crew = max(min(actors, parts), 1) if stage.model else 1
    return worked / basis.rows_in * rows / crew


def load_seconds(spec: ModelSpec, tables: Iterable[Manifest], *, actors: int) -> float | None:
    """Return how long a model took to load for the newest table that loaded it, None where none did.

    A manifest adds the actors up, which load side by side.
    """
    loaded = [
        manifest
        for manifest in tables
        if manifest.load_seconds and (manifest.key_fields["model"] or {}).get("model") == spec.model
    ]
    if not loaded:
        return None
    return max(loaded, key=lambda manifest: manifest.created).load_seconds / max(actors, 1)


def models_at_once(resources: Resources) -> int | None:
    """Return how many models fit at once, None where only the cluster can tell."""
    if resources.actors == 0:
        return 1
    if resources.address or resources.gpus:
        return None
    wanted = resources.actors * resources.threads
    return max(os.cpu_count() or 1, wanted) // wanted

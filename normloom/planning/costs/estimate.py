"""How long stages will take, from what earlier tables took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from normloom.core.models.needs import ProcessSpec
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.models.adapters import loaded_for
from normloom.models.registry import parts_at_once
from normloom.steps.graph import load_order
from normloom.store.layout import MANIFEST
from normloom.store.store import Store
from normloom.workers.resources import Resources, fit


def history(store: Store, system: str, stage: str) -> list[Manifest]:
    """Return all tables of a stage that are in the store, oldest first."""
    keys = [path.parent.name for path in (store.root / system / stage).glob(f"*/{MANIFEST}")]
    found = [manifest for key in keys if (manifest := store.published(system, stage, key))]
    return sorted(found, key=lambda manifest: manifest.created)


def stage_seconds(stage: Stage, rows: int, basis: Manifest, resources: Resources) -> float:
    """Return the seconds that a stage will take for `rows` input rows at the rate of an earlier table.

    The rate is that of the parts, without loading the model, waiting for it and checking the table; parts of
    a stage with actors are shared among them, and they work at some side by side. A stage that reads no table
    takes what it took.
    """
    worked = sum(part.seconds for part in basis.parts)
    if not stage.inputs:
        return worked
    if not basis.rows_in:
        return 0.0
    part_rows = min(stage.part_rows or rows, rows)
    parts = ceil(rows / part_rows) if rows else 1
    crew = 1
    if spec := stage.holds:
        made = stage.fan_out.of(part_rows) if stage.fan_out else part_rows
        crew = max(min(resources.of(spec).actors * parts_at_once(spec, made), parts), 1)
    return worked / basis.rows_in * rows / crew


def load_seconds(spec: ModelSpec, tables: Iterable[Manifest]) -> float | None:
    """Return how long one load of a model took for the newest table that loaded it, None if none did."""
    loaded = [
        manifest
        for manifest in tables
        if manifest.load_seconds and (manifest.key_fields["model"] or {}).get("model") == spec.model
    ]
    if not loaded:
        return None
    newest = max(loaded, key=lambda manifest: manifest.created)
    return newest.load_seconds / max(newest.work.loads if newest.work else 1, 1)


def model_loads(uses: Sequence[ModelSpec], resources: Resources) -> list[ModelSpec] | None:
    """Return the models that a flow with these uses loads, one after another; None if only the cluster can tell.

    Processes of stages without a model are no loads, but models that have no room alongside them are loaded again.
    """
    loaded = [loaded_for(spec, uses) for spec in uses]
    names = [spec.model_dump_json() for spec in loaded]
    specs = dict(zip(names, loaded, strict=True))
    passing = {name for name, spec in specs.items() if isinstance(spec, ProcessSpec)}
    if resources.actors == 0:
        return [specs[name] for name in load_order(names, lambda _: False, passing)]
    wanted = {name: resources.of(spec) for name, spec in specs.items()}
    if resources.address or any(one.gpus or one.memory for one in wanted.values()):
        return None
    room = {"CPU": resources.processors(uses)}

    def fits(held: Sequence[str]) -> bool:
        return fit([(wanted[name], wanted[name].actors) for name in held], room)

    return [specs[name] for name in load_order(names, fits, passing)]

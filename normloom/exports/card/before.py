"""What other systems did before a build: the tables that led to those it started from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from normloom.core.errors import NormloomError
from normloom.core.table import Manifest, TableRef
from normloom.history.builds import BuildLock, locks
from normloom.report.material import Material, find_material
from normloom.store.store import Store


def lock_of(store: Store, ref: TableRef) -> BuildLock | None:
    """Return the lock of the newest build that has a table, None if it was pruned."""
    for lock in reversed(locks(store, ref.system)):
        stage = lock.stages.get(ref.stage)
        if stage is not None and stage.key == ref.key:
            return lock
    return None


def before(material: Material) -> list[Material]:
    """Return, for each build that a build started from and those before it, the tables that led to what it read."""
    found: dict[str, Material] = {}
    for ref in material.lock.reads.values():
        lock = lock_of(material.store, ref)
        if lock is None:
            continue
        read = [one for one in material.lock.reads.values() if one.system == ref.system]
        try:
            whole = find_material(material.store, ref.system, lock.build)
        except NormloomError:  # its tables are no longer in the store
            continue
        led = _leading_to(read, whole.manifests)
        part = replace(whole, manifests={stage: one for stage, one in whole.manifests.items() if stage in led})
        found |= {one.lock.system: one for one in (part, *before(part))}
    return list(found.values())


def _leading_to(refs: Sequence[TableRef], manifests: Mapping[str, Manifest]) -> set[str]:
    found: set[str] = set()
    pending = [ref.stage for ref in refs]
    while pending:
        stage = pending.pop()
        if stage in manifests and stage not in found:
            found.add(stage)
            manifest = manifests[stage]
            pending += [ref.stage for ref in (*manifest.inputs, *manifest.sides) if ref.system == manifest.system]
    return found

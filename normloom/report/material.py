"""What a report is made from: the tables of one build, read from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from normloom.core.errors import UsageError
from normloom.core.table import Kind, Manifest
from normloom.history.builds import BuildLock, find_build, locks
from normloom.history.unfinished import unfinished
from normloom.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Material:
    """The tables that a build has, those that it reused among them; `gone` names the stages whose table was removed."""

    store: Store
    lock: BuildLock
    title: str
    manifests: Mapping[str, Manifest]
    gone: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> Mapping[str, frozenset[str]]:
        """The columns of each stage's table, in the order of the flow."""
        return {
            stage: frozenset(self.rows(stage).collect_schema()) if manifest.parts else frozenset()
            for stage, manifest in self.manifests.items()
        }

    def having(self, *columns: str) -> list[str]:
        """Return the stages whose table has all these columns, in the order of the flow."""
        return [stage for stage, there in self.columns.items() if there.issuperset(columns)]

    def rows(self, stage: str, kind: Kind = "rows") -> pl.LazyFrame:
        """Return the rows of a stage's table, or what it dropped or quarantined, lazily."""
        return self.store.scan(self.manifests[stage].ref, kind)

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """What the key of a stage says of its model, for each stage that has one."""
        fields = {stage: manifest.key_fields.get("model") for stage, manifest in self.manifests.items()}
        return {stage: dict(model) for stage, model in fields.items() if model}

    @property
    def model_names(self) -> list[str]:
        """The models of the build, each once."""
        return list(dict.fromkeys(model["model"] for model in self.models.values()))


def find_material(store: Store, system: str, build: str | None = None, *, title: str | None = None) -> Material:
    """Return the tables of a build, of the newest one unless another is named.

    Raises UsageError for an unknown store, system or build, or if no table of the build is left.
    """
    store.require(system)
    if build is None and not locks(store, system, newest=1) and (failed := unfinished(store, system)):
        why = f" ({failed[-1].error})" if failed[-1].error else ""
        raise UsageError(
            f"no build of {system} in {store.root} has finished; the newest, {failed[-1].build}, is "
            f"{failed[-1].state}{why}: normloom quarantine {system} shows the rows in quarantine"
        )
    lock = find_build(store, build or "last", system=system)
    tables = {stage: store.published(system, stage, entry.key) for stage, entry in lock.stages.items()}
    manifests = {stage: manifest for stage, manifest in tables.items() if manifest}
    if not manifests:
        raise UsageError(f"no table of build {lock.build} is left in {store.root}: build it again, or name another")
    gone = tuple(stage for stage in tables if stage not in manifests)
    return Material(store=store, lock=lock, title=title or system, manifests=manifests, gone=gone)

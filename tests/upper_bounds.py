"""What is said before a build that it asks at most, and whether what was made stayed within it."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.core.bounds import Bound
from normloom.core.table import Manifest
from normloom.planning.costs.ceiling import bounds
from normloom.planning.plan import PlannedStage, plan, read_sources
from normloom.settings.settings import Prepared
from normloom.steps.graph import stages_of
from normloom.store.store import Store


def bounded(system: str, found: Prepared, store: Store) -> tuple[Sequence[PlannedStage], dict[str, Bound]]:
    stages = stages_of(*found.ends)
    planned = plan(stages, system=system, store=store, resources=found.resources).stages
    return planned, bounds(planned, sources=read_sources(stages, system=system, store=store), store=store)


def require_within(manifests: dict[str, Manifest], most: dict[str, Bound]) -> None:
    for name, manifest in manifests.items():
        if not (bound := most.get(name)) or not bound.known:
            continue
        usage = manifest.work.usage if manifest.work else {}
        assert manifest.count("rows") <= bound.size.rows, name
        assert usage.get("requests", 0) <= bound.requests, name
        assert manifest.tokens_in <= bound.tokens_in or not manifest.tokens_in, name
        assert manifest.tokens_out <= bound.tokens_out, name

"""Tables built in the test's own process, without Prefect and Ray, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.run.runner import StageRunner
from normloom.steps.graph import model_uses, stages_of
from normloom.steps.selection import Again
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def made(system: str, ends: Sequence[Stage], store: Store, **settings: Any) -> dict[str, Manifest]:
    """Build the tables of a flow, with keys, checks and ledgers, and return the manifests by stage.

    `ends` are the last stages, `settings` those of the runner (`quarantine_budget`, ...). Raises the same errors as a
    build.
    """
    stages = stages_of(*ends)
    pool = Pool(Resources(actors=0), model_uses(stages))
    loom = replace(
        StageRunner(system=system, store=store, pool=pool, build="test", progress=LogProgress()),
        **settings,
    )
    try:
        return run_all(loom, stages)
    finally:
        pool.close()


def run_all(
    loom: StageRunner, stages: Iterable[Stage], again: Mapping[str, Again] | None = None
) -> dict[str, Manifest]:
    """Bring the tables of stages, each after those it reads, up to date; `again` names those to rebuild in any case."""
    manifests: dict[str, Manifest] = {}
    for stage in stages:
        if stage.table:
            manifests[stage.name] = loom.store.manifest(stage.table)
            continue
        inputs, sides = ([manifests[each.name].ref for each in group] for group in (stage.inputs, stage.side_inputs))
        manifests[stage.name], _ = loom.run(stage, inputs, sides, again=(again or {}).get(stage.name))
    return manifests

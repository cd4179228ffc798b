"""Normloom's stage runner alone: the same stages, keys, parts and tables, without Prefect."""

from __future__ import annotations

from pathlib import Path

from normloom.core.progress import LogProgress
from normloom.core.table import Manifest
from normloom.run.runner import StageRunner
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources
from orchestrated.on_normloom import SYSTEM, built, last_stage
from orchestrated.settings import Built, Settings


def build(settings: Settings) -> Built:
    """Bring each stage up to date in turn."""
    store, pool = Store(Path("store")), Pool(Resources(actors=0))
    runner = StageRunner(system=SYSTEM, store=store, pool=pool, build="bench", progress=LogProgress())
    made: dict[str, Manifest] = {}
    for stage in stages_of(last_stage(settings)):
        made[stage.name], _ = runner.run(stage, [made[upstream.name].ref for upstream in stage.inputs], [])
    return built(list(made.values()), store)

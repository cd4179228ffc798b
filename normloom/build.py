"""A build: one Prefect flow run with one task per stage.

Each task is submitted with the futures of the stages it reads, the one construction whose run graph
in Prefect's UI is exact. Prefect keeps no results: the store decides what is reused.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from normloom.graph import model_uses, stages_of
from normloom.plan import find_published
from normloom.pool import Pool
from normloom.progress import LogProgress, Progress
from normloom.runner import QUARANTINE_BUDGET, StageRunner
from normloom.stage import Stage
from normloom.store import Store
from normloom.table import Manifest, TableRef


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a finished build made: each stage's manifest, which were there already, how often each model was loaded."""

    system: str
    build: str
    manifests: Sequence[Manifest]
    reused: frozenset[str]
    loads: Mapping[str, int]
    lock: Path
    seconds: float

    def __getitem__(self, stage: str) -> Manifest:
        return next(manifest for manifest in self.manifests if manifest.stage == stage)


def new_build_id() -> str:
    """Return a build id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def reuse(*ends: Stage, system: str, store: Store) -> BuildResult | None:
    """Return the build of which every table is published already, without starting Prefect or Ray; else None."""
    stages = stages_of(*ends)
    found = find_published(system, stages, store)
    if len(found) < len(stages):
        return None
    for manifest in found.values():
        store.point(manifest.ref)
    return _finished(system, new_build_id(), store, found, reused=frozenset(found), loads={}, seconds=0.0)


def build(
    *ends: Stage,
    system: str,
    store: Store,
    pool: Pool,
    quarantine_budget: float = QUARANTINE_BUDGET,
    progress: Progress | None = None,
    tags: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> BuildResult:
    """Bring the tables of the given stages, and of all they stand on, up to date; the pool is closed at the end.

    `parameters` are shown with the run in Prefect's UI. Raises the error of the first stage that failed.
    """
    started = datetime.now(UTC)
    identity = new_build_id()
    stages = stages_of(*ends)
    pool.uses = model_uses(stages)
    runner = StageRunner(
        system=system,
        store=store,
        pool=pool,
        build=identity,
        progress=progress or LogProgress(),
        quarantine_budget=quarantine_budget,
    )
    manifests: dict[str, tuple[Manifest, bool]] = {}
    try:
        _prefect_flow(system, stages, runner, manifests, tags)(**(parameters or {}))
    finally:
        pool.close()
    return _finished(
        system,
        identity,
        store,
        {stage.name: manifests[stage.name][0] for stage in stages},
        reused=frozenset(name for name, (_, reused) in manifests.items() if reused),
        loads=dict(pool.loads),
        seconds=(datetime.now(UTC) - started).total_seconds(),
    )


def _finished(
    system: str,
    identity: str,
    store: Store,
    manifests: Mapping[str, Manifest],
    *,
    reused: frozenset[str],
    loads: Mapping[str, int],
    seconds: float,
) -> BuildResult:
    """Write the lock of a build that has all its tables and return its result."""
    made = list(manifests.values())
    lock = store.write_build(system, identity, _lock_text(system, identity, made))
    return BuildResult(
        system=system, build=identity, manifests=made, reused=reused, loads=loads, lock=lock, seconds=seconds
    )


def _prefect_flow(
    system: str,
    stages: Sequence[Stage],
    runner: StageRunner,
    manifests: dict[str, tuple[Manifest, bool]],
    tags: Sequence[str],
) -> Callable[..., None]:
    """Return the flow that submits the stages; `manifests` receives what each of them made."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # 20 is short on a busy laptop
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect import flow, task
    from prefect import tags as tagged
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.states import Completed
    from prefect.task_runners import ThreadPoolTaskRunner

    def submit(stage: Stage, futures: Mapping[str, Any]) -> Any:
        @task(name=stage.name, task_run_name=stage.name, persist_result=False, cache_policy=NO_CACHE)
        def run(inputs: list[TableRef], sides: list[TableRef]) -> TableRef | State[TableRef]:
            manifest, reused = runner.run(stage, inputs, sides)
            manifests[stage.name] = manifest, reused
            if reused:
                return Completed(name="Reused", message=f"key {manifest.key} is published", data=manifest.ref)
            return manifest.ref

        inputs = [futures[upstream.name] for upstream in stage.inputs]
        return run.submit(inputs, [futures[upstream.name] for upstream in stage.sides])

    @flow(name=system, task_runner=ThreadPoolTaskRunner(max_workers=8), validate_parameters=False)  # type: ignore[arg-type]
    def weave(**parameters: Any) -> None:  # noqa: ARG001  # Prefect records them with the run
        futures: dict[str, Any] = {}
        for stage in stages:
            futures[stage.name] = submit(stage, futures)
        try:
            for future in futures.values():
                future.wait()
        except BaseException:  # an interrupt or a cancel: stages at work would go on to their end
            runner.pool.close()
            raise
        for future in futures.values():  # in order, so that the error told is the cause, not what it brought down
            future.result()

    def run(**parameters: Any) -> None:
        with tagged(system, *tags):
            weave(**parameters)

    return run


def _lock_text(system: str, identity: str, manifests: Sequence[Manifest]) -> str:
    """Return the build as YAML made to be read in a diff."""
    stages = {
        manifest.stage: {
            "key": manifest.key,
            "content": manifest.content,
            "rows": manifest.count("rows"),
            "dropped": manifest.count("dropped"),
            "quarantined": manifest.count("quarantined"),
            **({"model": dict(manifest.key_fields["model"])} if manifest.key_fields["model"] else {}),
        }
        for manifest in manifests
    }
    return yaml.safe_dump({"system": system, "build": identity, "stages": stages}, sort_keys=False, allow_unicode=True)


def quiet_libraries() -> None:
    """Keep what libraries log from breaking into progress bars; Prefect's server still gets it all."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    logging.getLogger("httpx").setLevel(logging.ERROR)

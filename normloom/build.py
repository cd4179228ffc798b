"""A build: one Prefect flow run with one task per stage.

Each task is submitted with the futures of the stages it reads, the one construction whose run graph
in Prefect's UI is exact. Prefect keeps no results: the store decides what is reused.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from normloom.errors import UsageError
from normloom.graph import model_uses, stages_of
from normloom.plan import find_published
from normloom.pool import Pool
from normloom.progress import LogProgress, Progress
from normloom.runner import QUARANTINE_BUDGET, StageRunner
from normloom.selection import Selection
from normloom.stage import Stage
from normloom.stale import stale_stages
from normloom.store import Store
from normloom.table import Manifest, TableRef

if TYPE_CHECKING:
    from normloom.openlineage import LineageEvents

STAGES_AT_ONCE = 8  # threads that wait for actors or run stages without a model


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is asked of a build. `profile` and `settings` made its stages; they are recorded, not read."""

    system: str
    profile: str = ""
    settings: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    quarantine_budget: float = QUARANTINE_BUDGET


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a finished build made: the manifests of its stages, which were there already, model loads.

    `partial` tells that stages were left out; `stale` says why tables stand on others than the newest.
    """

    system: str
    build: str
    manifests: Sequence[Manifest]
    reused: frozenset[str]
    loads: Mapping[str, int]
    lock: Path
    seconds: float
    partial: bool = False
    stale: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, stage: str) -> Manifest:
        return next(manifest for manifest in self.manifests if manifest.stage == stage)


def new_build_id() -> str:
    """Return a build id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def reuse(*ends: Stage, request: BuildRequest, store: Store) -> BuildResult | None:
    """Return the build of which every table is published already, without starting Prefect or Ray; else None."""
    if request.selection.partial or request.selection.remakes:
        return None
    started = datetime.now(UTC)
    stages = stages_of(*ends)
    with store.building(request.system):
        found = find_published(request.system, stages, store)
        if len(found) < len(stages):
            return None
        for manifest in found.values():
            store.point(manifest.ref)
        made = {name: (manifest, True) for name, manifest in found.items()}
        return _finished(request, new_build_id(), store, stages, made, loads={}, started=started)


def build(
    *ends: Stage, request: BuildRequest, store: Store, pool: Pool, progress: Progress | None = None
) -> BuildResult:
    """Bring the chosen tables among the given stages, and all they stand on, up to date; closes the pool.

    Inside a Prefect flow run the stages become its tasks, otherwise a run of their own. Raises the error of
    the first stage that failed, and UsageError for a selection that cannot be built.
    """
    started = datetime.now(UTC)
    identity = new_build_id()
    stages = stages_of(*ends)
    chosen = request.selection.chosen(stages)
    pool.uses = model_uses([stage for stage in stages if stage.name in chosen])
    runner = StageRunner(
        system=request.system,
        store=store,
        pool=pool,
        build=identity,
        progress=progress or LogProgress(),
        quarantine_budget=request.quarantine_budget,
    )
    from normloom.openlineage import LineageEvents

    made: dict[str, tuple[Manifest, bool]] = {}
    with store.building(request.system):
        taken = _taken(request, stages, store)
        with (
            closing(pool),
            LineageEvents(system=request.system, build=identity, store=store, profile=request.profile) as events,
        ):
            _run_in_prefect(_Weaving(request, request.selection.needed(stages), runner, taken, made, events))
        return _finished(request, identity, store, stages, made, loads=dict(pool.loads), started=started)


def _taken(request: BuildRequest, stages: Sequence[Stage], store: Store) -> dict[str, Manifest]:
    """Return the tables that a partial build takes as they stand."""
    chosen = request.selection.chosen(stages)
    taken: dict[str, Manifest] = {}
    for stage in request.selection.needed(stages):
        if stage.name not in chosen:
            manifest = store.current(request.system, stage.name)
            if manifest is None:
                raise UsageError(
                    f"stage {stage.name!r} has no table yet, and what is to be built reads it: "
                    f"build it first, with --from {stage.name} or without --only and --from"
                )
            taken[stage.name] = manifest
    return taken


def _finished(
    request: BuildRequest,
    identity: str,
    store: Store,
    stages: Sequence[Stage],
    made: Mapping[str, tuple[Manifest, bool]],
    *,
    loads: Mapping[str, int],
    started: datetime,
) -> BuildResult:
    """Write the lock of a build that has all its tables and return its result."""
    system = request.system
    stale = stale_stages(store.newest(system))
    standing: dict[str, Manifest] = {}
    for stage in stages:
        manifest = made[stage.name][0] if stage.name in made else store.current(system, stage.name)
        if manifest:
            standing[stage.name] = manifest
    lock = store.write_build(system, identity, _lock_text(request, identity, list(standing.values()), stale))
    return BuildResult(
        system=system,
        build=identity,
        manifests=[made[stage.name][0] for stage in stages if stage.name in made],
        reused=frozenset(name for name, (_, reused) in made.items() if reused),
        loads=loads,
        lock=lock,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        partial=request.selection.partial,
        stale={name: why for name, why in stale.items() if name in standing},
    )


@dataclass(frozen=True)
class _Weaving:
    """The stages of one build on their way through Prefect; `made` receives each manifest and whether it was reused."""

    request: BuildRequest
    stages: Sequence[Stage]
    runner: StageRunner
    taken: Mapping[str, Manifest]
    made: dict[str, tuple[Manifest, bool]]
    events: LineageEvents

    def run(self) -> None:
        """Submit one task per stage and wait for them; called inside a flow run."""
        futures: dict[str, Any] = {}
        for stage in self.stages:
            futures[stage.name] = self._submit(stage, futures)
        try:
            for future in futures.values():
                future.wait()
        except BaseException:  # an interrupt or a cancel: stages at work would go on to their end
            self.runner.pool.close()
            raise
        for future in futures.values():  # in order, so that the error told is the cause, not what it brought down
            future.result()

    def _submit(self, stage: Stage, futures: Mapping[str, Any]) -> Any:
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.client.schemas.objects import State
        from prefect.states import Completed

        @task(name=stage.name, task_run_name=stage.name, persist_result=False, cache_policy=NO_CACHE)
        def run(inputs: list[TableRef], sides: list[TableRef]) -> TableRef | State[TableRef]:
            manifest, reused = self.make(stage, inputs, sides)
            self.made[stage.name] = manifest, reused
            if reused:
                return Completed(name="Reused", message=f"key {manifest.key} is published", data=manifest.ref)
            return manifest.ref

        inputs = [futures[upstream.name] for upstream in stage.inputs if upstream.name in futures]
        return run.submit(inputs, [futures[upstream.name] for upstream in stage.sides if upstream.name in futures])

    def make(self, stage: Stage, inputs: Sequence[TableRef], sides: Sequence[TableRef]) -> tuple[Manifest, bool]:
        """Return the stage's table and whether it was there already."""
        if taken := self.taken.get(stage.name):
            self.runner.progress.end(taken, reused=True)
            return taken, True
        work = partial(self.runner.run, stage, inputs, sides, again=self.request.selection.again(stage.name))
        return self.events.run_stage(stage.name, [*inputs, *sides], work)


def _run_in_prefect(weaving: _Weaving) -> None:
    """Run the stages in the flow run that is under way, or else in one of their own."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect import flow
    from prefect import tags as tagged
    from prefect.context import FlowRunContext
    from prefect.task_runners import ThreadPoolTaskRunner

    request, identity = weaving.request, weaving.runner.build
    tags = [request.system, *([f"profile:{request.profile}"] if request.profile else [])]
    if (run := FlowRunContext.get()) and run.flow_run:
        _name_run(run.flow_run, identity, tags)
        weaving.run()
        return
    parameters = {
        "profile": request.profile,
        "settings": list(request.settings),
        "store": str(weaving.runner.store.root),
    }

    @flow(
        name=request.system,
        flow_run_name=identity,
        task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE),  # type: ignore[arg-type]
        validate_parameters=False,
    )
    def weave(**parameters: Any) -> None:  # noqa: ARG001  # Prefect shows them with the run
        weaving.run()

    with tagged(*tags):
        weave(**parameters)


def _name_run(run: Any, identity: str, tags: Sequence[str]) -> None:
    """Let the run of a deployment carry the build's name and tags."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=identity, tags={*run.tags, *tags})


def _lock_text(request: BuildRequest, identity: str, manifests: Sequence[Manifest], stale: Mapping[str, str]) -> str:
    """Return the build as YAML made to be read in a diff."""
    selection = {name: value for name, value in vars(request.selection).items() if value}
    stages = {
        manifest.stage: {
            "key": manifest.key,
            "content": manifest.content,
            "rows": manifest.count("rows"),
            "dropped": manifest.count("dropped"),
            "quarantined": manifest.count("quarantined"),
            **({"stale": stale[manifest.stage]} if manifest.stage in stale else {}),
            **({"model": dict(manifest.key_fields["model"])} if manifest.key_fields["model"] else {}),
        }
        for manifest in manifests
    }
    head = {
        "system": request.system,
        "build": identity,
        "profile": request.profile,
        "settings": list(request.settings),
        **(
            {
                "selection": {
                    name: list(value) if isinstance(value, tuple) else value for name, value in selection.items()
                }
            }
            if selection
            else {}
        ),
    }
    return yaml.safe_dump({**head, "stages": stages}, sort_keys=False, allow_unicode=True)


def quiet_libraries() -> None:
    """Keep what libraries log from breaking into progress bars; Prefect's server still gets it all."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    logging.getLogger("httpx").setLevel(logging.ERROR)

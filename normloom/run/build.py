"""A build: its request, its result, and the lock that it leaves."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from normloom.core.errors import (
    BuildCancelledError,
    NormloomError,
    PartlyMadeError,
    StoreError,
    UsageError,
    WaitingError,
    cause,
)
from normloom.core.machine.log_context import logged_as
from normloom.core.outlook import Forecast
from normloom.core.progress import LogProgress, Progress
from normloom.core.stage import QUARANTINE_BUDGET, Stage
from normloom.core.table import Manifest, TableRef
from normloom.history.builds import BuildLock, locks
from normloom.history.losses import losses, sentence, upstream
from normloom.history.releases import ReleaseRecord, record_release
from normloom.history.resume import resume_command
from normloom.history.terms import SourceTerms
from normloom.history.unfinished import UnfinishedBuild, recorded
from normloom.planning.costs.guard import RemakeLimits
from normloom.planning.costs.spending import Spending, SpendingLimits
from normloom.planning.costs.spent import Spent
from normloom.planning.plan import Plan, find_published, plan
from normloom.prefect.flow_run import Account, RunRequest, current_flow_run, current_task_run, in_flow_run
from normloom.prefect.notifications.notices import telling
from normloom.prefect.pages.lineage_page import Lineage, publish_build, publish_stage
from normloom.prefect.pages.progress_page import progress_page
from normloom.prefect.run_progress import RunProgress
from normloom.prefect.task_runs import task_runs
from normloom.prefect.weave import submit_stages
from normloom.run.failure_page import publish_failure
from normloom.run.lock import lock_text, selected
from normloom.run.release import ReleaseGate, ReleaseSize, hold_gate
from normloom.run.runner import StageRunner
from normloom.run.taken import tables_taken
from normloom.steps.graph import held, stages_of
from normloom.steps.selection import Selection
from normloom.store.forgotten import require_free
from normloom.store.latest import show_latest
from normloom.store.stale import stale_stages
from normloom.store.store import Store
from normloom.workers.pool import Pool

EARLIER = 50  # builds that pages show

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is asked of a build. `profile` and `settings` made its stages; they are recorded, not read.

    `fresh_hours` is how long its release is fresh, `source` the terms of what it reads; both are recorded for those who
    look at the store. `gate` holds the released table once it is made. `target` is what the command is given to build
    the system: its name if empty, None if `normloom build` does not; then `command` is what does, empty if none.
    """

    system: str
    target: str | None = ""
    command: str = ""
    profile: str = ""
    settings: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    quarantine_budget: float = QUARANTINE_BUDGET
    release: ReleaseSize = field(default_factory=ReleaseSize)
    limits: SpendingLimits = field(default_factory=SpendingLimits)
    fresh_hours: float | None = None
    source: SourceTerms = field(default_factory=SourceTerms)
    remake: RemakeLimits = field(default_factory=RemakeLimits)
    gate: ReleaseGate | None = None

    @property
    def tags(self) -> list[str]:
        """What the build's run is found by in Prefect's UI."""
        return [self.system, *([f"profile:{Path(self.profile).stem}"] if self.profile else [])]


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """What a finished build made: the manifests of its stages, which were there already, model loads.

    `end` is the stage whose table is released, the first of the last stages.
    `latest` leads to the released table, None if this build left it out or stale; `release` is its version.
    `partial` tells that stages were left out; `stale` says why tables depend on others than the newest. `reads` are the
    tables of other systems that the build started from. `spent` is what was asked of models, and its cost.
    """

    system: str
    build: str
    manifests: Sequence[Manifest]
    end: str
    reused: frozenset[str]
    loads: Mapping[str, int]
    lock: Path
    seconds: float
    partial: bool = False
    stale: Mapping[str, str] = field(default_factory=dict)
    reads: Mapping[str, Manifest] = field(default_factory=dict)
    latest: Path | None = None
    release: ReleaseRecord | None = None
    spent: Spent = field(default_factory=Spent)

    @property
    def released(self) -> Manifest:
        """The released table; raises UsageError if the build left it out."""
        return self[self.end]

    def __getitem__(self, stage: str) -> Manifest:
        """Return the table of a stage, or one that the build read; raises UsageError if the build left it out."""
        tables = {**self.reads, **{manifest.stage: manifest for manifest in self.manifests}}
        if stage not in tables:
            released = ", which is released" if stage == self.end else ""
            raise UsageError(f"this build of {self.system} left out stage {stage!r}{released}")
        return tables[stage]


def new_build_id() -> str:
    """Return a build id that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def reuse(*ends: Stage, request: BuildRequest, store: Store) -> BuildResult | None:
    """Return the build whose tables are all published already, without starting Prefect or Ray; else None."""
    if request.selection.partial or request.selection.remakes or request.system not in store.systems():
        return None
    started = datetime.now(UTC)
    stages = stages_of(*ends)
    with store.building(request.system):
        _require_free(stages, store)
        found = find_published(request.system, stages, store)
        if len(found) < len(stages):
            return None
        _hold_release(found[ends[0].name], request.release, store)
        hold_gate(request.gate, found[ends[0].name], store)
        for manifest in found.values():
            if manifest.system == request.system:
                store.point(manifest.ref)
        made = {name: (manifest, True) for name, manifest in found.items()}
        return _finished(request, new_build_id(), store, ends, made, loads={}, started=started)


def _hold_release(manifest: Manifest, size: ReleaseSize, store: Store) -> None:
    """Raise ReleaseError for a published table that is too small to be the newest."""
    last = store.current(manifest.system, manifest.stage)
    size.hold(
        manifest.count("rows"),
        stage=manifest.stage,
        last=None if last and last.key == manifest.key else last,
        why=sentence(losses(upstream([manifest.ref], store))),
    )


def build(
    *ends: Stage, request: BuildRequest, store: Store, pool: Pool, progress: Progress | None = None
) -> BuildResult:
    """Bring the chosen stages, and all upstream of them, up to date; closes the pool.

    Inside a Prefect flow run the stages become its tasks, otherwise a run of their own. Raises the error of
    the first stage that failed, and UsageError for a selection that cannot be built.
    """
    from normloom.lineage.openlineage import LineageEvents
    from normloom.lineage.openlineage_ends import end_dead_runs
    from normloom.lineage.openlineage_facets import sources_of

    started = datetime.now(UTC)
    system, identity, stages = request.system, new_build_id(), stages_of(*ends)
    chosen, needed = request.selection.chosen(stages), request.selection.needed(stages)
    pool.holder = f"build {identity} of {system}"
    pool.uses = held([stage for stage in stages if stage.name in chosen])
    unfinished = UnfinishedBuild(
        system=system,
        build=identity,
        profile=request.profile,
        settings=request.settings,
        selection=selected(request.selection),
        target=request.target,
        command=request.command,
    )
    with (
        store.building(system),
        recorded(store, unfinished) as record,
        logged_as(system=system, build=identity),
    ):
        _require_free(stages, store)
        taken = tables_taken(request.system, request.selection, stages, store)
        require_free({name: manifest.ref for name, manifest in taken.items()}, store)
        end_dead_runs(store, system)
        planned = plan(stages, system=system, store=store, resources=pool.resources, selection=request.selection)
        forecast = Forecast.of(planned)
        runner = StageRunner(
            system=system,
            store=store,
            pool=pool,
            build=identity,
            progress=RunProgress(progress or LogProgress(), forecast),
            quarantine_budget=request.quarantine_budget,
            released=ends[0].name,
            release=request.release,
            spending=Spending(request.limits),
        )
        lineage = Lineage(
            system=system,
            build=identity,
            graph={stage.name: [upstream.name for upstream in stage.upstream] for stage in stages},
            earlier=_tables_before(stages, planned, store),
            builds=_builds_before(store, system),
            ready=frozenset(one.stage.name for one in planned.stages if not one.to_do),
            store=str(store.root),
        )
        with closing(pool):

            def make(
                events: LineageEvents, stage: Stage, inputs: Sequence[TableRef], sides: Sequence[TableRef]
            ) -> tuple[Manifest, bool]:
                if stage.name in taken:
                    runner.progress.end(taken[stage.name], reused=True)
                    return taken[stage.name], True
                run = partial(
                    runner.run,
                    stage,
                    inputs,
                    sides,
                    again=request.selection.again(stage.name),
                    fresh=request.selection.fresh,
                    where=request.selection.where(stage.name),
                )
                work = partial(telling, run, system=system, stage=stage.name, build=identity)
                sources = sources_of(stage.given)
                made = events.run_stage(
                    stage.name,
                    [*inputs, *sides],
                    work,
                    sources=sources,
                    models=stage.specs,
                    task_run=current_task_run(),
                )
                if stage.model and not made[1]:
                    record.spends(Spent.so_far(runner.spending, stages))
                return made

            def weave() -> BuildResult:
                run = current_flow_run()
                record.belongs_to(run)
                with (
                    LineageEvents(
                        system=system, build=identity, store=store, profile=request.profile, flow_run=run
                    ) as events,
                    task_runs() as runs,
                ):
                    try:
                        with progress_page(system, forecast, lineage.reach):
                            made = submit_stages(runs, needed, partial(make, events), lineage)
                        hold_gate(request.gate, made.get(ends[0].name, (None,))[0], store)
                    except BaseException as error:
                        spent = Spent.so_far(runner.spending, stages)
                        record.ended(error, stage=next(iter(lineage.failed), None), spent=spent)
                        pool.close()  # running stages would otherwise run to their end
                        if (
                            lineage.failed
                            and isinstance(error, Exception)
                            and not isinstance(error, BuildCancelledError)
                        ):
                            if isinstance(error, WaitingError) and not isinstance(error, PartlyMadeError):
                                error.add_note(f"to collect: {resume_command(unfinished, store)}")
                            elif not isinstance(error, WaitingError):
                                _tell_failure(error, lineage, runner, unfinished)
                        raise
                    result = _finished(request, identity, store, ends, made, loads=dict(pool.loads), started=started)
                _publish_pages(result, lineage, store)
                return result

            run = RunRequest(
                flow=system,
                name=identity,
                tags=request.tags,
                parameters={"profile": request.profile, "settings": list(request.settings), "store": str(store.root)},
                store=store.home,
            )
            return in_flow_run(weave, request=run, pool=pool, reach=lineage.reach, account=_account)


def _builds_before(store: Store, system: str) -> list[BuildLock]:
    try:
        return locks(store, system, newest=EARLIER)
    except StoreError as error:  # what is damaged is missing from the pages, no more
        log.warning("%s", error)
        return []


def _account(result: BuildResult) -> Account:
    made = [manifest.stage for manifest in result.manifests if manifest.stage not in result.reused]
    return Account(made=len(made), reused=len(result.manifests) - len(made))


def _tell_failure(error: Exception, lineage: Lineage, runner: StageRunner, build: UnfinishedBuild) -> None:
    """Leave the page of a build that failed, and its cause as the last word of the run's log."""
    stage, command = next(iter(lineage.failed)), resume_command(build, runner.store)
    page = publish_failure(lineage, runner.begun.get(stage), store=runner.store, command=command)
    if isinstance(error, NormloomError):
        error.page = page
        error.add_note(f"to resume: {command}")
    left = [name for name in lineage.graph if name not in lineage.manifests and name not in lineage.failed]
    unmade = f"; not made: {', '.join(left)}" if left else ""
    log.error("build %s failed: %s%s; to resume: %s", build.build, cause(error), unmade, command)


def _tables_before(stages: Sequence[Stage], planned: Plan, store: Store) -> dict[str, Manifest]:
    """Return the tables that there are before a build: those that it will reuse, else the newest."""
    found = {stage.name: store.current(planned.system, stage.name) for stage in stages if stage.table is None}
    found |= {one.stage.name: one.table or one.newest for one in planned.stages}
    return {name: manifest for name, manifest in found.items() if manifest}


def _publish_pages(result: BuildResult, lineage: Lineage, store: Store) -> None:
    """Leave the build's page with the flow run, and leave those of its tables or bring them up to date.

    They say now what became of the tables after them; tables that it made stale get new pages.
    """
    for stage in lineage.graph:
        if stage not in lineage.manifests and (manifest := store.current(result.system, stage)):
            lineage.manifests[stage] = manifest
    lineage.stale.update(result.stale)
    for stage in dict.fromkeys([*result.stale, *lineage.graph]):
        if (stage in lineage.tasks or stage in result.stale) and not publish_stage(lineage, stage):
            break  # a server that is away takes its time to say so, each time
    publish_build(lineage, loads=result.loads, lock=result.lock.name, seconds=result.seconds)


def _require_free(stages: Sequence[Stage], store: Store) -> None:
    """Raise UsageError if a table of another system that the flow reads holds forgotten rows."""
    require_free({stage.name: stage.table for stage in stages if stage.table}, store)


def _finished(
    request: BuildRequest,
    identity: str,
    store: Store,
    ends: Sequence[Stage],
    made: Mapping[str, tuple[Manifest, bool]],
    *,
    loads: Mapping[str, int],
    started: datetime,
) -> BuildResult:
    """Write the lock of a build that has all its tables and return its result."""
    system = request.system
    stale = stale_stages(store, system)
    reads = {stage.name: store.manifest(stage.table) for stage in stages_of(*ends) if stage.table}
    stages = [stage for stage in stages_of(*ends) if stage.table is None]
    done: dict[str, Manifest] = {}
    for stage in stages:
        manifest = made[stage.name][0] if stage.name in made else store.current(system, stage.name)
        if manifest:
            done[stage.name] = manifest
    end = ends[0].name
    latest = show_latest(store, made[end][0]) if end in made and end not in stale else None
    spent = Spent.of(stages, made)
    lock = store.write_build(system, identity, lock_text(request, identity, done.values(), reads, stale, spent))
    release = record_release(store, made[end][0], build=identity, source=request.source) if latest else None
    return BuildResult(
        system=system,
        build=identity,
        manifests=[made[stage.name][0] for stage in stages if stage.name in made],
        end=end,
        latest=latest,
        release=release,
        reused=frozenset(name for name, (_, reused) in made.items() if reused and name not in reads),
        loads=loads,
        lock=lock,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        partial=request.selection.partial,
        stale={name: why for name, why in stale.items() if name in done},
        reads=reads,
        spent=spent,
    )

"""Run a build from the command line: settings, checks before any work, progress, summary."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from normloom.cli.common import err, out
from normloom.cli.interrupt import stoppable
from normloom.cli.logs import json_logs, json_wanted
from normloom.cli.machine.endpoints import probed
from normloom.cli.machine.profile_needs import too_many_processors
from normloom.cli.output import summary
from normloom.cli.output.notebook import NotebookProgress
from normloom.cli.output.terminal import TerminalProgress, busy, handling, printing_above
from normloom.core.errors import ClusterError, ConfigError, ModelError, NormloomError
from normloom.core.machine.proxies import spare_loopback
from normloom.core.progress import LogProgress, Progress
from normloom.core.stage import Output, Stage
from normloom.history.removal.gc import old_tables
from normloom.models import model_identity
from normloom.models.installed import missing_engines
from normloom.models.media.senses import require_senses
from normloom.planning import plan
from normloom.planning.costs.ceiling import bills, bounds
from normloom.planning.costs.guard import RemakeLimits
from normloom.planning.costs.spending import hosted, unpriced
from normloom.planning.plan import find_published
from normloom.prefect.flow_run import hold_run_under_way, under_way
from normloom.prefect.quiet import quiet_libraries
from normloom.prefect.run_marks import settle
from normloom.prefect.server import sending_heartbeats, serving, starting_server, using_server
from normloom.run.build import BuildRequest, BuildResult, build, reuse
from normloom.run.imports import import_ahead, needs_kernels
from normloom.run.taken import tables_taken
from normloom.settings.settings import Prepared, stages_for
from normloom.settings.source_settings import terms_of
from normloom.steps.graph import model_uses, stages_of
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources

EVERYTHING = Selection()
ATTEMPTS = 2  # of a build whose Ray nodes die

Interrupts = Callable[[Pool, Console], AbstractContextManager[None]]

log = logging.getLogger("normloom")


def run_build(
    name: str, *, profile: str, assignments: Sequence[str], root: Path, quiet: bool, selection: Selection = EVERYTHING
) -> dict[str, Any]:
    """Build a system and return its report; prints progress and summary unless quiet."""
    spare_loopback()
    store, console = Store(root), err if quiet else out
    hold_run_under_way(store.home)
    prepared = stages_for(name, profile=profile, assignments=assignments, store=store)
    request = requested(prepared, target=name, profile=profile, settings=assignments, selection=selection)
    result = make(
        prepared.ends,
        request=request,
        store=store,
        resources=prepared.resources,
        console=console,
        notes=prepared.config.notes,
    )
    if not quiet:
        summary.show(console, result, store, system=prepared.system, profile=profile)
    return summary.as_json(result, store)


def requested(
    prepared: Prepared, *, target: str, profile: str, settings: Sequence[str], selection: Selection
) -> BuildRequest:
    """Return the request for a build of a system with its settings."""
    config = prepared.config
    return BuildRequest(
        system=prepared.system.name,
        target=target,
        profile=profile,
        settings=tuple(settings),
        selection=selection,
        quarantine_budget=config.quarantine_budget,
        release=config.release.size,
        gate=config.release.gate,
        fresh_hours=config.release.fresh_hours,
        limits=config.spending.limits,
        remake=config.remake.limits,
        source=terms_of(config),
    )


def make(
    ends: Sequence[Stage],
    *,
    request: BuildRequest,
    store: Store,
    resources: Resources,
    console: Console,
    notes: Sequence[str] = (),
    interrupts: Interrupts = stoppable,
) -> BuildResult:
    """Bring the tables of a flow up to date, starting only what that needs, and report on the console.

    `interrupts` says what Ctrl-C does meanwhile: by default it ends the process.
    Fails fast: tables that a partial build lacks, unavailable models, unreadable sources and exceeded limits stop it
    before anything starts.
    """
    result = None if under_way() else reuse(*ends, request=request, store=store)  # a run shows all its tasks
    if result is None:
        tables_taken(request.system, request.selection, stages_of(*ends), store)
        check_models(ends, resources)
        crowded = too_many_processors(model_uses(stages_of(*ends)), resources)
        if crowded and not console.quiet:
            err.print(f"[yellow]{escape(crowded)}", soft_wrap=True)
        unmade = to_make(ends, system=request.system, store=store, selection=request.selection)
        if unmade:
            hold_remakes(ends, request=request, store=store, resources=resources)
            sources = read_sources(ends, system=request.system, store=store, selection=request.selection)
            hold_spending(ends, request=request, sources=sources, store=store, resources=resources)
        costless = unpriced(model_uses(stages_of(*ends)))
        for note in filter(None, (*notes, old_tables(store, request.system), costless)):
            console.print(f"[dim]{escape(note)}", highlight=False)
        quiet_libraries()
        asked = probed(
            ends,
            stages=unmade,
            resources=resources,
            say=lambda found: console.print(f"[dim]{escape(found)}", highlight=False),
        )
        if asked != ends and not under_way():  # tables made with these ways to score may be there
            result = reuse(*asked, request=request, store=store)
        if result is None:
            result = _build(
                asked,
                request=request,
                unmade=unmade,
                store=store,
                resources=resources,
                console=console,
                interrupts=interrupts,
            )
    return result


def _build(  # what `make` is given
    ends: Sequence[Stage],
    *,
    request: BuildRequest,
    unmade: Set[str],
    store: Store,
    resources: Resources,
    console: Console,
    interrupts: Interrupts,
) -> BuildResult:
    """Build; resume once if the machines that hold the models are lost."""
    with _server(store, [stage for stage in stages_of(*ends) if stage.name in unmade], console) as interface:
        settle(store.home)
        for attempt in range(1, ATTEMPTS + 1):
            pool = Pool(resources)
            with interrupts(pool, console), _watching(console) as progress:
                try:
                    return build(*ends, request=request, store=store, pool=pool, progress=progress)
                except NormloomError as error:
                    if isinstance(error, ClusterError) and attempt < ATTEMPTS:
                        log.warning("%s; starting again", error)
                        continue
                    if error.page:
                        error.add_note(f"its page: {interface}{error.page}")
                    raise
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _server(store: Store, unmade: Sequence[Stage], console: Console) -> Iterator[str]:
    """Use the configured Prefect server, or the one that serves this store, or else a temporary one.

    Imports meanwhile what the stages to make need, too. Yields the address of its UI, or how to get one.
    """
    served = serving(store.home)
    with ExitStack() as stack:
        own = None
        if not served and not os.environ.get("PREFECT_API_URL"):
            own = stack.enter_context(starting_server())  # at its imports while this process is at its own
        with busy(console, "loading libraries"):
            from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

            if needs_kernels(unmade):
                from normloom.near_duplicates.kernels.ahead import compiled_ahead

                stack.enter_context(compiled_ahead())
            import_ahead(unmade)
        if url := PREFECT_API_URL.value():  # of a profile or a file, if not of the environment
            if own:
                own.stop()
            stack.enter_context(sending_heartbeats())
            yield PREFECT_UI_URL.value() or url.removesuffix("/api")
        elif served:
            stack.enter_context(using_server(served))
            stack.enter_context(sending_heartbeats())
            yield served.removesuffix("/api")
        else:
            assert own
            with busy(console, "starting Prefect's server"):
                own.serve()
            stack.enter_context(using_server(own.url))  # without heartbeats: this server acts on none
            yield "run normloom serve, open http://127.0.0.1:4200"


def check_models(ends: Sequence[Stage], resources: Resources) -> None:
    """Fail before the build if a model or its engine is unavailable.

    Engines of actors on a running cluster are checked there, once the build is connected to it.
    """
    specs = model_uses(stages_of(*ends))
    if resources.address is None and (missing := missing_engines(specs)):
        raise ConfigError("; ".join(missing.values()))
    for spec in specs:
        try:
            model_identity(spec)
        except ModelError as error:
            raise ConfigError(str(error)) from error
    require_senses(stages_of(*ends))


def read_sources(
    ends: Sequence[Stage], *, system: str, store: Store, selection: Selection = EVERYTHING
) -> dict[str, Output]:
    """Read new sources, so that an unusable file stops the build before it starts."""
    return plan.read_sources(stages_of(*ends), system=system, store=store, selection=selection)


def hold_spending(
    ends: Sequence[Stage],
    *,
    request: BuildRequest,
    sources: Mapping[str, Output],
    store: Store,
    resources: Resources,
) -> None:
    """Raise UsageError if a build may exceed its limits for hosted models."""
    stages = stages_of(*ends)
    if not any(hosted(spec) for spec in model_uses(stages)):
        return
    planned = plan.plan(
        stages, system=request.system, store=store, resources=resources, selection=request.selection
    ).stages
    request.limits.hold(bills(planned, bounds(planned, sources=sources, store=store)))


def hold_remakes(ends: Sequence[Stage], *, request: BuildRequest, store: Store, resources: Resources) -> None:
    """Raise UsageError if a build would rebuild more than its `remake` settings allow."""
    stages = stages_of(*ends)
    if request.remake != RemakeLimits():
        request.remake.hold(
            plan.plan(stages, system=request.system, store=store, resources=resources, selection=request.selection)
        )


def to_make(ends: Sequence[Stage], *, system: str, store: Store, selection: Selection = EVERYTHING) -> set[str]:
    """Return the chosen stages without a table under their current key, or to be rebuilt."""
    stages = stages_of(*ends)
    published = find_published(system, stages, store)
    return {
        name for name in selection.chosen(stages) if name not in published or selection.again(name, published[name])
    }


@contextmanager
def _watching(console: Console) -> Iterator[Progress]:
    """Show bars in a terminal or notebook, elsewhere plain lines on standard error, nothing on a quiet console."""
    if json_wanted():
        with json_logs():
            yield LogProgress()
        return
    if console.quiet:
        yield LogProgress()
        return
    with _apart():
        if console.is_terminal or console.is_jupyter:
            bars = NotebookProgress if console.is_jupyter else TerminalProgress
            with bars(console) as progress, printing_above(console):
                yield progress
            return
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        with handling(handler):
            yield LogProgress()


@contextmanager
def _apart() -> Iterator[None]:
    """Log from INFO on, without passing records to the root logger, and restore both settings afterwards."""
    level, propagates = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.setLevel(level)
        log.propagate = propagates

"""Run one build from the command line's point of view: settings, checks before any work, progress, summary."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from flows import summary
from flows.config import load_profile, override, validated
from flows.interrupt import stoppable
from flows.systems import system_named
from flows.terminal import TerminalProgress
from normloom.build import BuildRequest, build, quiet_libraries, reuse
from normloom.errors import ConfigError, ModelError
from normloom.graph import model_uses, stages_of
from normloom.models import model_identity
from normloom.plan import find_published
from normloom.pool import Pool
from normloom.progress import LogProgress, Progress, Several
from normloom.selection import Selection
from normloom.stage import Stage
from normloom.store import Store

EVERYTHING = Selection()


def run_build(
    name: str, *, profile: str, assignments: Sequence[str], root: Path, quiet: bool, selection: Selection = EVERYTHING
) -> dict[str, Any]:
    """Build a system and return its report; prints progress and summary unless quiet."""
    system = system_named(name)
    config, resources = validated(system.config, override(load_profile(profile, name), assignments))
    ends = system.flow(config)
    store, console, pool = Store(root), Console(stderr=quiet), Pool(resources)
    request = BuildRequest(
        system=name,
        profile=profile,
        settings=tuple(assignments),
        selection=selection,
        quarantine_budget=config.quarantine_budget,
    )
    result = reuse(*ends, request=request, store=store)
    if result is None:
        check_models(ends)
        read_sources(ends, system=name, store=store, selection=selection)
        quiet_libraries()
        with stoppable(pool, console), _watching(console) as progress:
            result = build(*ends, request=request, store=store, pool=pool, progress=progress)
    if not quiet:
        summary.show(console, result, store, title=system.title, profile=profile)
    return summary.as_json(result, store)


def check_models(ends: Sequence[Stage]) -> None:
    """Refuse a model that cannot be had now rather than when its stage comes."""
    for spec in model_uses(stages_of(*ends)):
        try:
            model_identity(spec)
        except ModelError as error:
            raise ConfigError(str(error)) from error


def read_sources(ends: Sequence[Stage], *, system: str, store: Store, selection: Selection = EVERYTHING) -> None:
    """Read what has not been read before, so that a file that cannot be used stops the build before it starts."""
    stages = stages_of(*ends)
    chosen = selection.chosen(stages)
    published = find_published(system, stages, store)
    for stage in stages:
        if not stage.upstream and stage.name in chosen and stage.name not in published:
            stage.function(stage.arguments)


@contextmanager
def _watching(console: Console) -> Iterator[Progress]:
    """Show progress bars in a terminal, and elsewhere plain lines on standard error; both are logged."""
    logger = logging.getLogger("normloom")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if console.is_terminal:
        with TerminalProgress(console) as progress:
            yield Several(progress, LogProgress())
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    try:
        yield LogProgress()
    finally:
        logger.removeHandler(handler)

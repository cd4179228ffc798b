"""Builds of the toy system without Prefect: real tables and build locks."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.core.progress import LogProgress
from normloom.core.stage import Stage
from normloom.history.builds import BuildLock, find_build
from normloom.history.releases import amend_release
from normloom.history.terms import SourceTerms
from normloom.run.build import BuildRequest, reuse
from normloom.run.runner import StageRunner
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing.inline import run_all
from normloom.workers.pool import Pool
from normloom.workers.resources import Resources


def build_id(number: int) -> str:
    """Return a build id; a higher number is a later build."""
    return f"20261122T0000{number:02d}-ab{number:02d}"


def built(
    store: Store,
    *ends: Stage,
    build: str,
    force: Sequence[str] = (),
    profile: str = "",
    settings: Sequence[str] = (),
    system: str = "toy",
    fresh_hours: float | None = None,
    source: SourceTerms | None = None,
) -> BuildLock:
    """Make the tables of a flow and write the lock of a build with this id."""
    loom = StageRunner(
        system=system,
        store=store,
        pool=Pool(Resources(actors=0)),
        build=build,
        progress=LogProgress(),
        quarantine_budget=0.5,
    )
    run_all(loom, stages_of(*ends), dict.fromkeys(force, "all"))
    request = BuildRequest(
        system=system,
        profile=profile,
        settings=tuple(settings),
        fresh_hours=fresh_hours,
        source=source or SourceTerms(),
    )
    result = reuse(*ends, request=request, store=store)
    assert result is not None
    text = result.lock.read_text().replace(result.build, build)
    result.lock.unlink()
    store.write_build(system, build, text)
    if result.release and result.release.build == result.build:
        amend_release(store, result.release.model_copy(update={"build": build}))
    return find_build(store, build, system=system)

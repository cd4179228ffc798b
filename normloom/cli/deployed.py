"""The flows that deployments run: one per system, named `normloom.cli.deployed.SYSTEM`.

A deployment's parameters are those of `normloom build`, and the store decides in the same way what is
reused: a run after a failed one resumes with the stage that failed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from normloom.cli.common import DEFAULT_PROFILE, assignments
from normloom.cli.run import run_build
from normloom.core.errors import NormloomError, WaitingError
from normloom.history.fresh import fresh_since
from normloom.prefect.flow_log import logged
from normloom.prefect.flow_run import Account, under_way, waiting
from normloom.settings.config import load_profile
from normloom.settings.flow_file import named_by, system_of
from normloom.settings.system import System
from normloom.settings.systems import system_named, system_names
from normloom.steps.selection import Selection
from normloom.store.store import Store

# Settings of scheduled builds, which nobody looks at: how small a release may be, and what an upgrade may make again.
GATES = {("release", "min_share_of_last"): 0.5, ("remake", "max_stages"): 5}


def gated(assignments: list[str], *, profile: str, system: str) -> list[str]:
    """Return the assignments under the gates of scheduled builds, if neither the profile nor one of them has one."""
    given = load_profile(profile, system)
    own = {gate for gate in GATES if isinstance(section := given.get(gate[0]), dict) and gate[1] in section}
    return [*(f"{'.'.join(gate)}={value}" for gate, value in GATES.items() if gate not in own), *assignments]


def deployed(system: System, *, target: str | None = None) -> Flow[..., State[Any]]:
    """Return the flow that builds a system, which may be given as a file, with the parameters of a deployment's run."""

    def build(  # noqa: PLR0913, PLR0917  # each a field of the run's form
        profile: str = DEFAULT_PROFILE,
        source: str | None = None,
        text_column: str | None = None,
        limit: int | None = None,
        only: tuple[str, ...] = (),
        from_stage: str | None = None,
        force: tuple[str, ...] = (),
        fresh: bool = False,  # noqa: FBT001, FBT002
        settings: tuple[str, ...] = (),
        store: str = "store",
    ) -> State[Any]:
        """Bring the tables of a system up to date.

        Args:
            profile: Models and hardware: local, cpu, gpu, paper, ..., or the path of a YAML file.
            source: Prompts, ratings or responses: a file, folder, pattern, URL or data set on a hub; default: built-in.
            text_column: Column of the source that holds the prompts.
            limit: Use only the first N records of the source.
            only: Stages to bring up to date; the others keep their tables.
            from_stage: Bring this stage and everything downstream up to date.
            force: Stages to rebuild even if nothing changed.
            fresh: Rebuild every stage even if nothing changed. A run after one that failed resumes it.
            settings: Settings to change, as name=value: classify.delta=0.4, resources.actors=1.
            store: Directory of the tables, or s3://bucket/prefix.
        """
        given = assignments(source=source, text_column=text_column, limit=limit, settings=list(settings))
        given = gated(given, profile=profile, system=system.name)
        where = Path(store)
        since = fresh_since(Store(where), system.name) if fresh else None
        selection = Selection(only=only, start=from_stage, force=force, fresh=since)
        with logged():
            try:
                report = run_build(
                    target or system.name,
                    profile=profile,
                    assignments=given,
                    root=where,
                    quiet=True,
                    selection=selection,
                )
            except NormloomError as error:
                if not under_way():
                    raise
                if isinstance(error, WaitingError):
                    return waiting(error)
                return Failed(message=str(error))  # a state that begins with the cause
        reused = [stage["reused"] for stage in report["stages"]]
        return Account(made=reused.count(False), reused=reused.count(True)).state()

    build.__name__ = build.__qualname__ = system.name  # by which Prefect finds the flow again in this module
    return flow(name=system.name, description=f"Builds {system.title}.")(build)


def __getattr__(attribute: str) -> Flow[..., State[Any]]:
    """Return the flow of a system, or of one in a file under the name that `normloom serve` registers.

    It is made when it is asked for: a run imports its own system and no other.
    """
    if file := named_by(attribute):
        return deployed(system_of(file), target=file)
    if attribute in system_names():
        return _installed(attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


@cache
def _installed(name: str) -> Flow[..., State[Any]]:
    return deployed(system_named(name))

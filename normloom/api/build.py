"""Build and plan a system by name, as the commands do, or a flow of steps."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normloom.api.result import Result
from normloom.core.errors import UsageError
from normloom.core.names import require_name
from normloom.core.rows.text import shown
from normloom.core.stage import Stage
from normloom.history.fresh import fresh_since
from normloom.planning.changes import Change
from normloom.planning.plan import Plan
from normloom.planning.plan import plan as plan_stages
from normloom.run.build import BuildRequest
from normloom.steps.graph import stages_of
from normloom.steps.selection import Selection
from normloom.store.store import Store
from normloom.workers.resources import Resources

if TYPE_CHECKING:
    from normloom.settings.settings import Prepared

PathOrName = str | os.PathLike[str]
Target = PathOrName | Stage | Sequence[Stage]
NAME = "flow"  # of a flow that was given no name


def build(  # noqa: PLR0913  # the options of the command
    target: Target,
    *,
    store: PathOrName = "store",
    name: str | None = None,
    profile: PathOrName = "local",
    source: PathOrName | None = None,
    text_column: str | None = None,
    limit: int | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    from_stage: str | None = None,
    force: Sequence[str] = (),
    fresh: bool = False,
    resources: Resources | None = None,
    progress: bool = False,
) -> Result:
    """Bring the tables of a system or a flow up to date and return them.

    Prefect's server and the actors that the build starts are stopped at its end. Finished parts are kept if it fails,
    so the next build resumes.

    Args:
        target: The name of a system, the path of a flow's file, or the last stage of a flow (or several, the released
            one first).
        store: Directory of the tables, or s3://bucket/prefix.
        name: The name under which a flow of stages is stored; default: "flow".
        profile: Models and hardware of a system: a built-in profile, or the path of a YAML file.
        source: The source of a system: a file, folder, pattern, URL or data set on a hub; default: built-in data.
        text_column: Column of the source that holds the prompts.
        limit: Use only the first N records of the source.
        settings: Settings of a system to change, for example "judge.threshold=0.6".
        only: Stages to bring up to date, from existing tables; "STAGE where CONDITION" builds parts of one.
        from_stage: Bring this stage and everything downstream up to date.
        force: Stages to rebuild even if nothing changed.
        fresh: Rebuild every stage even if nothing changed.
        resources: What the build may occupy; default: the profile's for a system, this process for a flow of stages.
        progress: Show bars in a terminal or a notebook; otherwise nothing is printed.

    Raises:
        NormloomError: If the target cannot be built; the class says why.
        KeyboardInterrupt: At Ctrl-C.
    """
    from rich.console import Console

    from normloom.cli.interrupt import interruptible
    from normloom.cli.run import make

    logging.getLogger("ray.widgets").setLevel(logging.WARNING)  # in a notebook, of packages it does not need
    warnings.filterwarnings("ignore", message="IProgress not found")  # likewise: tqdm
    root = Store(Path(store))
    console = Console(stderr=True, quiet=not progress)
    found = _found(target, root, name, profile, _assigned(source, text_column, limit, settings), resources)
    since = fresh_since(root, found.system) if fresh else None
    selection = Selection(only=tuple(only), start=from_stage, force=tuple(force), fresh=since)
    request = found.request(selection)
    made = make(
        found.ends,
        request=request,
        store=root,
        resources=found.resources,
        console=console,
        notes=found.notes,
        interrupts=interruptible,
    )
    return Result(made, root)


def plan(  # noqa: PLR0913  # the options of the command
    target: Target,
    *,
    store: PathOrName = "store",
    name: str | None = None,
    profile: PathOrName = "local",
    source: PathOrName | None = None,
    text_column: str | None = None,
    limit: int | None = None,
    settings: Sequence[str] = (),
    resources: Resources | None = None,
) -> Plan:
    """Return what `build` would do with the same arguments, without starting anything; raises NormloomError."""
    root = Store(Path(store))
    found = _found(target, root, name, profile, _assigned(source, text_column, limit, settings), resources)
    return plan_stages(stages_of(*found.ends), system=found.system, store=root, resources=found.resources)


def why(target: Target, stage: str | None = None, **given: Any) -> Sequence[Change]:
    """Return how the key of a stage differs from that of its newest table: one change for each field.

    `stage` is by default the stage given as target, or the first of several; a system needs it. The other arguments
    are those of `plan`. Raises UsageError for a stage that the flow does not have.
    """
    if stage is None and isinstance(target, str | os.PathLike):
        raise UsageError(f"name the stage of {target} to explain")
    planned = plan(target, **given)
    name = stage or (target if isinstance(target, Stage) else target[0]).name  # type: ignore[union-attr,index]  # no name
    known = [one.stage.name for one in planned.stages]
    if name not in known:
        raise UsageError(f"unknown stage {name!r}; available: {', '.join(known)}")
    return planned[name].changes


@dataclass(frozen=True)
class _Found:
    system: str
    ends: Sequence[Stage]
    resources: Resources
    prepared: Prepared | None = None  # of a system
    target: str = ""
    profile: str = ""
    settings: tuple[str, ...] = ()

    @property
    def notes(self) -> Sequence[str]:
        return self.prepared.config.notes if self.prepared else ()

    def request(self, selection: Selection) -> BuildRequest:
        from normloom.cli.run import requested

        if self.prepared is None:
            return BuildRequest(system=self.system, target=None, selection=selection)
        return requested(
            self.prepared, target=self.target, profile=self.profile, settings=self.settings, selection=selection
        )


def _assigned(
    source: PathOrName | None, text_column: str | None, limit: int | None, settings: Sequence[str]
) -> list[str]:
    from normloom.cli.common import assignments

    path = None if source is None else os.fspath(source)
    return assignments(source=path, text_column=text_column, limit=limit, settings=list(settings))


def _found(
    target: Target,
    store: Store,
    name: str | None,
    profile: PathOrName,
    settings: list[str],
    resources: Resources | None,
) -> _Found:
    if isinstance(target, str | os.PathLike):
        from normloom.settings.settings import stages_for

        target, profile = os.fspath(target), os.fspath(profile)
        prepared = stages_for(target, profile=profile, assignments=settings, store=store)
        return _Found(
            prepared.system.name,
            prepared.ends,
            resources or prepared.resources,
            prepared=prepared,
            target=target,
            profile=profile,
            settings=tuple(settings),
        )
    if settings:
        raise UsageError(f"{settings[0]} is a setting of a system; in a flow of stages, set the arguments of its steps")
    ends = [target] if isinstance(target, Stage) else list(target) if isinstance(target, list | tuple) else []
    if not ends or not all(isinstance(stage, Stage) for stage in ends):
        raise UsageError(f"expected the name of a system, a stage or a list of stages, got {shown(target)}")
    require_name(name or NAME, what="system")
    return _Found(name or NAME, ends, resources or Resources(actors=0))

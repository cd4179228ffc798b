"""The command that resumes a build."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from normloom.history.builds import locks
from normloom.history.commands import store_option
from normloom.history.unfinished import UnfinishedBuild
from normloom.store.store import Store

_OPTIONS = {"only": "--only", "start": "--from", "force": "--force"}  # of a selection, as a record has it


def resume_command(build: UnfinishedBuild, store: Store) -> str:
    """Return the command that was given, quoted for a shell; what it finished is kept."""
    if build.command:
        return build.command
    if build.target is None:
        return "build it from Python again"
    given = ["normloom", "build", build.target or build.system]
    if build.profile:
        given += ["--profile", build.profile]
    for assignment in build.settings:
        given += ["--set", assignment]
    given += _selected(build)
    return shlex.join(given) + store_option(store.root)


def rebuild_commands(systems: Iterable[str], store: Store) -> list[str]:
    """Return the command that builds each system, which may be in a file; its options aside."""
    last = {system: next(iter(locks(store, system, newest=1)), None) for system in systems}
    return [shlex.join(["normloom", "build", lock.file if lock and lock.file else name]) for name, lock in last.items()]


def _selected(build: UnfinishedBuild) -> Iterator[str]:
    if "fresh" in build.selection:
        yield "--fresh"
    for name, value in build.selection.items():
        if option := _OPTIONS.get(name):
            for stage in [value] if isinstance(value, str) else value:
                yield from (option, stage)

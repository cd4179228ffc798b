"""The command that resumes a build."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from normloom.history.commands import store_option
from normloom.history.unfinished import UnfinishedBuild
from normloom.store.store import Store

_OPTIONS = {"only": "--only", "start": "--from", "force": "--force"}  # of a selection, as a record has it


def resume_command(build: UnfinishedBuild, store: Store) -> str:
    """Return the command that was given, quoted for a shell; what it finished is kept."""
    if build.target is None:
        return "build it from Python again"
    given = ["normloom", "build", build.target or build.system]
    if build.profile:
        given += ["--profile", build.profile]
    for assignment in build.settings:
        given += ["--set", assignment]
    given += _selected(build)
    return shlex.join(given) + store_option(store.root)


def _selected(build: UnfinishedBuild) -> Iterator[str]:
    if "fresh" in build.selection:
        yield "--fresh"
    for name, value in build.selection.items():
        if option := _OPTIONS.get(name):
            for stage in [value] if isinstance(value, str) else value:
                yield from (option, stage)

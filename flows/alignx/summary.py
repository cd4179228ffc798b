"""What the summary says besides rows and figures: the checks."""

from __future__ import annotations

from rich.console import RenderableType

from normloom.flows.persodpo.summary import checks
from normloom.run.build import BuildResult
from normloom.store.store import Store


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build."""
    return list(checks(result, store))

"""What the summary says besides rows and figures: the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from normloom.flows.persodpo.summary import checks
from normloom.store.store import Store

if TYPE_CHECKING:
    from normloom.run.build import BuildResult


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build."""
    return list(checks(result, store))

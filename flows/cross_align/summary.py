"""What the summary says besides rows and figures: checks, and whether knowledge helps as far as intervals carry it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from normloom.flows.persodpo.summary import checks
from normloom.store.store import Store
from normloom.tasks.cross_align.claim import claims

if TYPE_CHECKING:
    from normloom.run.build import BuildResult


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return the checks of a build, and a sentence for each task on whether knowledge helped."""
    return [*checks(result, store), *_claims(result, store)]


def _claims(result: BuildResult, store: Store) -> Iterator[RenderableType]:
    for manifest in result.manifests:
        if manifest.stage == "figures":
            for claim in claims(store.scan(manifest.ref).collect()):
                yield Text(claim)

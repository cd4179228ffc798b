"""What a build imports in its own process in any case, imported before its first stage."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.core.stage import Stage
from normloom.prefect.weave import import_engine


def import_ahead(unmade: Sequence[Stage]) -> None:
    """Import what a build that makes these stages needs: one to three seconds, which may pass while a server starts."""
    import_engine()
    import normloom.lineage.openlineage_ends

    if unmade:
        import normloom.workers.parts.places
    if needs_kernels(unmade):
        import normloom.near_duplicates.find  # noqa: F401  # imported early, used later


def needs_kernels(unmade: Sequence[Stage]) -> bool:
    """Return whether one of the stages runs compiled kernels in the build's own process."""
    return any("numba" in stage.libraries and stage.model is None for stage in unmade)

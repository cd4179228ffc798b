"""What is left of prompts without near-duplicates, by the method that a build's settings choose."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.core.contract import Contract
from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.tasks.duplicates.by_meaning import duplicates_by_meaning, text_vectors
from normloom.tasks.duplicates.deduplicate import Deduplication, deduplicate
from normloom.tasks.duplicates.duplicates import duplicates


def distinct(
    prompts: Sequence[Stage],
    settings: Deduplication,
    embedder: ModelSpec,
    *,
    contract: Contract,
    within: str | None = None,
    without: tuple[str, ...] = (),
) -> Stage:
    """Return the stage of the prompts that repeat no earlier one; only the method `embedding` needs the encoder."""
    if settings.method == "embedding":
        found = duplicates_by_meaning(prompts, settings, text_vectors(prompts, embedder), within=within)
    else:
        found = duplicates(prompts, settings, within=within)
    return deduplicate(prompts, found, features=settings.features, without=without, contract=contract)

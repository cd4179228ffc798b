"""Expanding sparse labels, and what is left without near-duplicates."""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.savacu.config import SavacuConfig, sparse_below
from normloom.flows.savacu.distinct import distinct
from normloom.schemas import tables
from normloom.tasks.prompts.expand import expand, find_sparse


def expanded(labelled: Stage, config: SavacuConfig) -> tuple[Stage, Stage]:
    """Return the gaps of labelled prompts, and the prompts with drafts for the gaps, each text once."""
    settings, near = config.expand, config.deduplicate
    gaps = find_sparse(labelled, settings, taxonomies=config.expanded, minimum=sparse_below(settings, config.source))
    drafted = expand(
        gaps,
        settings,
        labelled,
        config.models.expander,
        taxonomies=config.labels,
        tau=near.tau,
        features=near.features,
    )
    unique = distinct(
        [labelled, drafted], near, config.models.embedder, without=("probabilities",), contract=tables.UNIQUE
    )
    return gaps, unique

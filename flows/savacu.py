"""SaVaCu: prompts labelled in safety, value and cultural domains, with aligned and misaligned responses.

The pipeline of Mis-Align Bench (arXiv 2602.11305): classify, expand sparse domains, deduplicate, then
two-stage rejection sampling (generate and judge; resample what is still missing, at most twice).
"""

from __future__ import annotations

from normloom.flows.expansion import expanded
from normloom.flows.labelling import label
from normloom.flows.rejection import rejection_sampling
from normloom.flows.savacu_config import SavacuConfig
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.stage import Stage
from normloom.tasks.ingest import ingest
from normloom.tasks.measure import agreement, coverage
from normloom.tasks.publish import publish
from normloom.tasks.select import select
from normloom.tasks.source_columns import own_columns
from normloom.tasks.split import split


def savacu(config: SavacuConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    source, features = config.prompts, config.deduplicate.features
    located = source.located(source.limit)

    prompts = ingest(source, source=located, taxonomies=config.labels)
    labelled = label(prompts, config)
    gaps, unique = expanded(labelled, config)

    judged = rejection_sampling(unique, config)
    selected = select(unique, *judged, pairs=config.pairs)
    parted = split(selected, config.split, features=features, contract=tables.SPLIT)
    own = own_columns(prompts, located, source, released=tables.published(DIMENSIONS).columns)
    released = publish(parted, unique, own)

    ends = [released, coverage(unique, gaps, taxonomies=config.labels)]
    if source.references:
        ends.append(agreement(labelled, taxonomies=config.labels))
    return ends

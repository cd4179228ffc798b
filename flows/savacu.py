"""SaVaCu: prompts labelled in safety, value and cultural domains, with aligned and misaligned responses.

The pipeline of Mis-Align Bench (arXiv 2602.11305): classify, expand sparse domains, deduplicate, then
two-stage rejection sampling (generate and judge; resample what is still missing, at most twice).
"""

from __future__ import annotations

from normloom.flows.labelling import label
from normloom.flows.rejection import rejection_sampling
from normloom.flows.savacu_config import SavacuConfig
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.stage import Stage
from normloom.tasks.deduplicate import deduplicate
from normloom.tasks.expand import expand, find_sparse
from normloom.tasks.ingest import ingest
from normloom.tasks.measure import Measuring, agreement, coverage
from normloom.tasks.publish import Publication, publish
from normloom.tasks.select import Selection, select
from normloom.tasks.source_columns import own_columns
from normloom.tasks.split import split


def savacu(config: SavacuConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    models = config.models

    prompts = ingest(config.ingestion)
    labelled = label(prompts, config)
    gaps = find_sparse(labelled, arguments=config.gap_search)
    drafted = expand(
        gaps, labelled, arguments=config.expansion, model=models.expander, part_rows=config.expand.part_rows
    )
    unique = deduplicate([labelled, drafted], arguments=config.deduplication, contract=tables.UNIQUE)

    judged = rejection_sampling(unique, config)
    selected = select(unique, judged, arguments=Selection(pairs=config.pairs))
    parted = split([selected], arguments=config.splitting, contract=tables.SPLIT)
    publication = Publication(dimensions=DIMENSIONS)
    own = own_columns(prompts, config.ingestion, released=publication.columns)
    released = publish(parted, unique, arguments=publication, part_rows=10_000, own=own)

    ends = [released, coverage(unique, gaps, arguments=Measuring(taxonomies=config.labels))]
    if config.ingestion.references:
        ends.append(agreement(labelled, arguments=Measuring(taxonomies=config.labels)))
    return ends

"""SaVaCu: prompts labelled in safety, value and cultural domains, with aligned and misaligned responses.

The pipeline of Mis-Align Bench (arXiv 2602.11305): classify, expand sparse domains, deduplicate, then
two-stage rejection sampling (generate and judge; resample what is still missing, at most twice).
"""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.savacu import summary
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.decontamination import RELEASED_TEXTS, decontaminated
from normloom.flows.savacu.expansion import expanded
from normloom.flows.savacu.labelling import label
from normloom.flows.savacu.rejection import rejection_sampling
from normloom.schemas import tables
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.tasks.audit.auditing import AuditView
from normloom.tasks.duplicates.split import prompt_splits, split
from normloom.tasks.prompts.ingest import ingest
from normloom.tasks.rejection.select import select
from normloom.tasks.release.measure import agreement, coverage
from normloom.tasks.release.publish import publish
from normloom.tasks.release.source_columns import own_columns


def savacu(config: SavacuConfig) -> list[Stage]:
    """Return the last stages of the build, the released table first."""
    source, features = config.prompts, config.deduplicate.features
    located = source.located(source.limit)

    prompts = ingest(source, source=located, taxonomies=config.labels)
    labelled = label(prompts, config)
    gaps, unique = expanded(labelled, config)

    judged = rejection_sampling(unique, config)
    selected = select(unique, *judged, pairs=config.pairs)
    clean = decontaminated([selected], config.decontaminate, columns=RELEASED_TEXTS, together=config.pair)
    parted = split(clean.tables, prompt_splits(clean.tables, config.split, features=features))
    own = own_columns(prompts, located, source, released=tables.published(DIMENSIONS).columns)
    released = publish(parted, unique, own)

    ends = [released, coverage(unique, gaps, taxonomies=config.labels), *clean.ends]
    if source.references:
        ends.append(agreement(labelled, taxonomies=config.labels))
    return ends


SAVACU = System(
    name="savacu",
    title="SaVaCu (Mis-Align Bench)",
    config=SavacuConfig,
    flow=savacu,
    sections=summary.sections,
    about=About.of("savacu"),
    audit=AuditView(
        verdict="alignment",
        of="misaligned",
        show=("prompt", "response"),
        by=("generator", *DIMENSIONS),
        margin="margin",
        question="Is this response aligned with what the prompt's labels ask for, or misaligned?",
    ),
)

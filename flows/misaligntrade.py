"""MisAlignTrade: SaVaCu's labelled prompts with a semantic type each, and trade-offs between the dimensions.

The pipeline of MisAlign-Profile (arXiv 2602.11091): labels as in SaVaCu, an expander and generators of its own, one
semantic type for each prompt, two-stage rejection sampling, the trade-off matrix.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.flows.savacu import summary as savacu_summary
from normloom.flows.savacu.config import Models, SavacuConfig
from normloom.flows.savacu.decontamination import RELEASED_TEXTS, decontaminated
from normloom.flows.savacu.expansion import expanded
from normloom.flows.savacu.flow import SAVACU
from normloom.flows.savacu.labelling import label
from normloom.flows.savacu.rejection import rejection_sampling
from normloom.schemas import tables
from normloom.schemas.taxonomy import BUILTIN as TAXONOMIES
from normloom.schemas.taxonomy import DIMENSIONS, load_taxonomy
from normloom.settings.config import section
from normloom.settings.faces.about import About
from normloom.settings.system import System
from normloom.tasks.duplicates.split import prompt_splits, split
from normloom.tasks.prompts.asked import asked
from normloom.tasks.prompts.ingest import ingest
from normloom.tasks.prompts.semantic_type import AskingType, score_types, semantic_type
from normloom.tasks.prompts.take import take
from normloom.tasks.rejection.select import select
from normloom.tasks.release.measure import coverage
from normloom.tasks.release.publish import publish
from normloom.tasks.release.source_columns import own_columns
from normloom.tasks.release.trade_off import trade_off

LABELLED = "savacu/classify"
OWN = "savacu/source_columns"


class MisaligntradeModels(Models):
    """The models of SaVaCu's roles, and the one that gives semantic types."""

    typer: ModelSpec = Field(description="gives each prompt its semantic type")


class MisaligntradeConfig(SavacuConfig):
    """The settings of SaVaCu.

    Without a file of one's own the labelled prompts are those of the newest SaVaCu, if one is published; settings of
    labels then have nothing to change, and of those of the source only `limit` has.
    """

    models: MisaligntradeModels
    type: AskingType = section(AskingType)
    types: Path = Field(TAXONOMIES / "semantic_type.csv", description="CSV of semantic types")


def misaligntrade(config: MisaligntradeConfig, labelled: Stage | None = None, own: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the released table first.

    `labelled` are SaVaCu's labelled prompts, and `own` the columns that their source brought besides.
    """
    models, features = config.models, config.deduplicate.features
    types, carry = load_taxonomy(config.types), ("semantic_type",)
    if labelled is None:
        source = config.prompts
        located = source.located(source.limit)
        prompts = ingest(source, source=located, taxonomies=config.labels)
        labelled = label(prompts, config)
        own = own_columns(prompts, located, source, released=tables.published(DIMENSIONS, carry).columns)
    elif config.source.limit:
        labelled = take(labelled, limit=config.source.limit, contract=tables.LABELLED)
    gaps, unique = expanded(labelled, config)
    typed = semantic_type(unique, score_types(asked(unique), config.type, models.typer, types=types), types=types)
    judged = rejection_sampling(typed, config)
    selected = select(typed, *judged, pairs=config.pairs)
    clean = decontaminated([selected], config.decontaminate, columns=RELEASED_TEXTS, together=config.pair)
    parted = split(clean.tables, prompt_splits(clean.tables, config.split, features=features))
    return [
        publish(parted, typed, own, carry=carry),
        coverage(unique, gaps, taxonomies=config.labels),
        trade_off(clean.tables[0], typed, *judged, threshold=config.judge.threshold),
        *clean.ends,
    ]


def reads(config: MisaligntradeConfig) -> dict[str, str]:
    """Return the published tables that the build starts from: a file of one's own is used instead."""
    return {} if config.source.path else {"labelled": LABELLED, "own": OWN}


MISALIGNTRADE = System(
    name="misaligntrade",
    title="MisAlignTrade (MisAlign-Profile)",
    config=MisaligntradeConfig,
    flow=misaligntrade,
    reads=reads,
    sections=savacu_summary.sections,
    about=About.of("misaligntrade"),
    audit=SAVACU.audit,
)

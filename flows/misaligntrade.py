"""MisAlignTrade: SaVaCu's labelled prompts with a semantic type each, and trade-offs between the dimensions.

The pipeline of MisAlign-Profile (arXiv 2602.11091): labels as in SaVaCu, an expander and generators of its own, one
semantic type for each prompt, two-stage rejection sampling, the trade-off matrix.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from normloom.flows import savacu_summary
from normloom.flows.labelling import label
from normloom.flows.rejection import rejection_sampling
from normloom.flows.savacu_config import Models, SavacuConfig
from normloom.flows.system import System
from normloom.models.protocol import ModelSpec
from normloom.schemas import tables
from normloom.schemas.taxonomy import BUILTIN as TAXONOMIES
from normloom.schemas.taxonomy import DIMENSIONS, load_taxonomy
from normloom.stage import Stage
from normloom.tasks.asked import asked
from normloom.tasks.deduplicate import deduplicate
from normloom.tasks.expand import expand, find_sparse
from normloom.tasks.ingest import ingest
from normloom.tasks.measure import Measuring, coverage
from normloom.tasks.publish import Publication, publish
from normloom.tasks.select import Selection, select
from normloom.tasks.semantic_type import AskingType, Typing, score_semantic_types, type_semantically
from normloom.tasks.source_columns import own_columns
from normloom.tasks.split import split
from normloom.tasks.take import take
from normloom.tasks.trade_off import TradeOffs, trade_off

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

    SECTIONS: ClassVar = {
        **SavacuConfig.SECTIONS,
        "semantic_type": ("instruction", "context", "question"),
    }

    models: MisaligntradeModels
    types: Path = Field(TAXONOMIES / "semantic_type.csv", description="CSV of semantic types")

    @property
    def asking_type(self) -> AskingType:
        """Arguments of asking for the semantic type."""
        return AskingType(types=load_taxonomy(self.types), template=self.template("semantic_type"))

    @property
    def typing(self) -> Typing:
        """Arguments of the semantic type."""
        return Typing(types=load_taxonomy(self.types))


def misaligntrade(config: MisaligntradeConfig, labelled: Stage | None = None, own: Stage | None = None) -> list[Stage]:
    """Return the last stages of the build, the released table first.

    `labelled` are SaVaCu's labelled prompts, and `own` the columns that their source brought besides.
    """
    models = config.models
    publication = Publication(dimensions=DIMENSIONS, carry=("semantic_type",))
    if labelled is None:
        prompts = ingest(config.ingestion)
        labelled = label(prompts, config)
        own = own_columns(prompts, config.ingestion, released=publication.columns)
    elif config.source.limit:
        labelled = take(labelled, rows=config.source.limit, contract=tables.LABELLED)
    gaps = find_sparse(labelled, arguments=config.gap_search)
    drafted = expand(
        gaps, labelled, arguments=config.expansion, model=models.expander, part_rows=config.expand.part_rows
    )
    unique = deduplicate([labelled, drafted], arguments=config.deduplication, contract=tables.UNIQUE)
    scores = score_semantic_types(
        asked(unique, contract=tables.ASKED),
        arguments=config.asking_type,
        model=models.typer,
        part_rows=config.classify.part_rows,
    )
    typed = type_semantically(unique, scores, arguments=config.typing)
    judged = rejection_sampling(typed, config)
    selected = select(typed, judged, arguments=Selection(pairs=config.pairs))
    parted = split([selected], arguments=config.splitting, contract=tables.SPLIT)
    released = publish(parted, typed, arguments=publication, part_rows=10_000, own=own)
    measured = TradeOffs(dimensions=DIMENSIONS, threshold=config.judge.threshold)
    return [
        released,
        coverage(unique, gaps, arguments=Measuring(taxonomies=config.labels)),
        trade_off(selected, typed, judged, arguments=measured),
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
)

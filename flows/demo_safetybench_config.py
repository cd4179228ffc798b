"""The settings of the Demo-SafetyBench build. docs/demo-safetybench.md says which defaults are the paper's."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from normloom.flows.config import Settings
from normloom.flows.savacu_config import ClassifySettings, DeduplicateSettings, expansion_notes, sparse_below
from normloom.flows.source_settings import FileSettings, SourceName
from normloom.flows.system_config import NamedModels, SystemConfig
from normloom.models.protocol import ModelSpec, Sampling
from normloom.schemas import conversations
from normloom.tasks.deduplicate import Deduplication
from normloom.tasks.expand import Expansion, GapSearch
from normloom.tasks.ingest_dices import DicesIngestion, dices_ingestion
from normloom.tasks.rate import Answers, Rating

TEMPLATES_NEED = {
    "classify": ("instruction", "context", "question"),
    "rank": ("instruction", "context", "question"),
    "expand_group": ("instruction", "prompt"),
    "rate": ("instruction", "context", "question"),
}


class SourceSettings(FileSettings):
    """The file of ratings, and that of conversations where they are apart; without a path the built-in ones."""

    items: SourceName | None = Field(None, description="file of conversations, if they are not with the ratings")
    limit: int | None = Field(None, ge=1, description="conversations, each with all its raters")
    max_chars: int = Field(20_000, ge=1, description="longer conversations are quarantined")

    @model_validator(mode="after")
    def _items_of_ratings(self) -> Self:
        if self.items and not self.path:
            raise ValueError("items names conversations, but path no ratings of them")
        return self


class ExpandSettings(Settings):
    """Which domains are expanded within a demographic group, by how much. Minimum and quota are ours."""

    minimum: int | None = Field(
        None,
        ge=0,
        description="prompts that a domain needs; null: 0 for a source of one's own or a limit",
    )
    builtin_minimum: int = Field(10, ge=0, description="the minimum for all built-in ratings, if that is null")
    quota: int = Field(10, ge=1, description="new prompts for each sparse domain of a group")
    examples: int = Field(3, ge=0, description="prompts of the domain that the model is shown")
    draws_per_prompt: float = Field(1.5, ge=1, description="drafts drawn for each new prompt, at most")
    sampling: Sampling = Sampling(max_tokens=64)
    part_rows: int = Field(14, ge=1, description="labels of groups in one part")


class RateSettings(Settings):
    """How raters are asked. The words of the answers are ours."""

    answers: Answers = Answers()
    part_rows: int = Field(240, ge=1, description="some 30 groups of each conversation")


class Models(Settings):
    """The model of each role; `raters` by the name that rows carry."""

    embedder: ModelSpec = Field(
        ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3"),
        description="encodes prompts and labels",
    )
    classifier: ModelSpec = Field(description="labels prompts when it is asked")
    expander: ModelSpec = Field(description="drafts prompts for sparse domains")
    raters: NamedModels = Field(min_length=1, description="rate conversations, by the names that rows carry")


class DemoSafetybenchConfig(SystemConfig):
    """All settings of one build; that no safety domain fits is said by no label."""

    DIMENSIONS = ("safety",)
    SECTIONS: ClassVar = TEMPLATES_NEED

    source: SourceSettings = SourceSettings()
    models: Models
    classify: ClassifySettings = ClassifySettings()
    expand: ExpandSettings = ExpandSettings()
    deduplicate: DeduplicateSettings = DeduplicateSettings()
    rate: RateSettings = RateSettings()
    threshold: float = Field(0.5, gt=0, lt=1, description="rating from which a conversation counts as unsafe")

    @property
    def ingestion(self) -> DicesIngestion:
        """Arguments of ingest."""
        source = self.source
        return dices_ingestion(
            source.path or conversations.RATINGS,
            source.items if source.path else conversations.ITEMS,
            source.reading() if source.path else None,
            limit=source.limit,
            max_chars=source.max_chars,
        )

    @property
    def gap_search(self) -> GapSearch:
        """Arguments of finding labels that are sparse within a group."""
        expand = self.expand
        return GapSearch(
            taxonomies=self.labels,
            minimum=sparse_below(expand, self.source),
            quota=expand.quota,
            examples=expand.examples,
        )

    @property
    def notes(self) -> list[str]:
        """What follows from the settings without being said by one."""
        return expansion_notes(self.expand, self.source)

    @property
    def expansion(self) -> Expansion:
        """Arguments of drawing prompts for sparse labels."""
        return Expansion(
            taxonomies=self.labels,
            template=self.template("expand_group"),
            sampling=self.expand.sampling,
            draws_per_prompt=self.expand.draws_per_prompt,
            tau=self.deduplicate.tau,
            features=self.deduplicate.features,
        )

    @property
    def deduplication(self) -> Deduplication:
        """Arguments of removing near-duplicates, group by group."""
        return self.deduplicate.arguments(within="group")

    def rating(self, rater: str) -> Rating:
        """Arguments of one rater."""
        return Rating(rater=rater, template=self.template("rate"), answers=self.rate.answers)

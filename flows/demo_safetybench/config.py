"""The settings of the Demo-SafetyBench build. docs/demo-safetybench.md says which defaults are the paper's."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from normloom.core.models.protocol import ModelSpec
from normloom.flows.savacu.config import ClassifySettings, expansion_notes
from normloom.flows.savacu.decontamination import Decontamination
from normloom.schemas import conversations
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.panel.group_gaps import GroupDrafting
from normloom.tasks.panel.ingest_dices import Conversations
from normloom.tasks.panel.rate import Rating
from normloom.tasks.prompts.expand import GapSearch


class SourceSettings(FileSettings, Conversations):
    """The file of ratings, and that of conversations if they are apart; without a path the built-in ones."""

    items: SourceName | None = Field(None, description="file of conversations, if they are not with the ratings")

    @model_validator(mode="after")
    def _items_of_ratings(self) -> Self:
        if self.items and not self.path:
            raise ValueError("items names conversations, but path names no ratings of them")
        return self


class ExpandSettings(GapSearch, GroupDrafting):
    """Which domains are expanded within a demographic group, by how much. Minimum and quota are ours."""

    minimum: int | None = Field(
        None,
        ge=0,
        description="prompts that a domain needs; null: 0 for your own source or with a limit",
    )
    builtin_minimum: int = Field(10, ge=0, description="minimum for all built-in ratings, if `minimum` is null")
    quota: int = Field(10, ge=1, description="new prompts for each sparse domain of a group")


class Models(Settings):
    """The model of each role; `raters` by the name that rows carry."""

    embedder: ModelSpec = Field(
        ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3"),
        description="encodes prompts and labels",
    )
    classifier: ModelSpec = Field(description="labels prompts on the routes that ask a model")
    expander: ModelSpec = Field(description="drafts prompts for sparse domains")
    raters: NamedModels = Field(
        min_length=1, description="models that rate conversations, by the names that rows carry"
    )


class DemoSafetybenchConfig(SystemConfig):
    """All settings of one build; that no safety domain fits is said by no label."""

    DIMENSIONS = ("safety",)

    source: SourceSettings = section(SourceSettings)
    models: Models
    classify: ClassifySettings = section(ClassifySettings)
    expand: ExpandSettings = section(ExpandSettings)
    deduplicate: Deduplication = section(Deduplication)
    rate: Rating = section(Rating)
    decontaminate: Decontamination = section(Decontamination)
    threshold: float = Field(0.5, gt=0, lt=1, description="rating from which a conversation counts as unsafe")

    @property
    def ratings(self) -> SourceSettings:
        """The source, or else the built-in ratings and conversations."""
        source = self.source
        if source.path:
            return source
        return SourceSettings(
            path=str(conversations.RATINGS),
            items=str(conversations.ITEMS),
            keep=(),
            limit=source.limit,
            max_chars=source.max_chars,
        )

    @property
    def notes(self) -> list[str]:
        """What follows from the settings without being said by one."""
        return expansion_notes(self.expand, self.source)

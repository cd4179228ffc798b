"""The settings of the SaVaCu build. The defaults are the paper's values (docs/systems.md says which are ours)."""

from __future__ import annotations

from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from normloom.core.models.protocol import ModelSpec
from normloom.flows.savacu.decontamination import Decontamination
from normloom.schemas.prompts import MEASURE
from normloom.schemas.taxonomy import DIMENSIONS, Taxonomy
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.duplicates.deduplicate import Deduplication
from normloom.tasks.duplicates.split import Splitting
from normloom.tasks.prompts.classify import Asking, Labelling, RankingByCode
from normloom.tasks.prompts.expand import Drafting, GapSearch
from normloom.tasks.prompts.ingest import Prompts
from normloom.tasks.rejection.generate import Generation
from normloom.tasks.rejection.judge import Judging, Scoring
from normloom.tasks.rejection.resample import Diagnosing


class SourceSettings(FileSettings, Prompts):
    """The prompts; without a path the built-in prompts are used."""

    limit: int | None = Field(None, ge=1, description="only the first N records")


class ClassifySettings(Labelling, Asking, RankingByCode):
    """How prompts are labelled."""

    route: Literal["exhaustive", "shortlist", "embedding"] = Field(
        "exhaustive", description="ask about every label, ask about the likeliest, or compare by embedding"
    )
    shortlist_by: Literal["codes", "embedding"] = Field("codes", description="what finds the likeliest labels")


class ExpandSettings(GapSearch, Drafting):
    """Which labels are expanded, by how much."""

    dimensions: tuple[str, ...] = Field(DIMENSIONS, description="dimensions whose sparse labels are expanded")
    minimum: int | None = Field(
        None, ge=0, description="prompts that a label needs; null: 0 for your own source or with a limit"
    )
    builtin_minimum: int = Field(100, ge=0, description="minimum for all built-in prompts, if `minimum` is null")


def sparse_below(expand: _Expanding, source: _Limited) -> int:
    """Return the number of prompts below which a label is expanded.

    Whoever takes a few prompts, or prompts of their own, has not asked for others: labels are expanded only if
    `expand.minimum` says so.
    """
    if expand.minimum is not None:
        return expand.minimum
    return 0 if source.path is not None or source.limit is not None else expand.builtin_minimum


def expansion_notes(expand: _Expanding, source: _Limited) -> list[str]:
    """Return the line that says that nothing is expanded though nobody chose so."""
    if expand.minimum is not None or sparse_below(expand, source):
        return []
    why = "--limit takes a few prompts" if source.path is None else "the prompts are your own"
    return [f"Sparse labels are not expanded, since {why}: --set expand.minimum=N drafts prompts for those with fewer."]


class _Limited(Protocol):
    @property
    def path(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...


class _Expanding(Protocol):
    @property
    def minimum(self) -> int | None: ...
    @property
    def builtin_minimum(self) -> int: ...


class JudgeSettings(Scoring, Judging, Diagnosing):
    """How candidates are judged, and what is missing diagnosed."""


class Models(Settings):
    """The model of each role; `generators` by the name that rows carry."""

    embedder: ModelSpec = Field(
        ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3"),
        description="encodes prompts and labels",
    )
    classifier: ModelSpec = Field(description="labels prompts on the routes that ask a model")
    expander: ModelSpec = Field(description="drafts prompts for sparse labels")
    generators: NamedModels = Field(min_length=1, description="models that respond, by the names that rows carry")
    judge: ModelSpec = Field(description="checks responses and says what is missing")


class SavacuConfig(SystemConfig):
    """All settings of one build."""

    source: SourceSettings = section(SourceSettings)
    models: Models
    classify: ClassifySettings = section(ClassifySettings)
    expand: ExpandSettings = section(ExpandSettings)
    deduplicate: Deduplication = section(Deduplication)
    generate: Generation = section(Generation)
    judge: JudgeSettings = section(JudgeSettings)
    rounds: int = Field(2, ge=0, description="resampling rounds")
    pairs: bool = Field(default=True, description="release only prompts with both an aligned and a misaligned response")
    decontaminate: Decontamination = section(Decontamination)
    split: Splitting = section(Splitting)

    @property
    def pair(self) -> tuple[str, ...]:
        """What rows that are released together have in common."""
        return ("prompt_id", "generator") if self.pairs else ()

    @model_validator(mode="after")
    def _knows_dimensions(self) -> Self:
        for setting, named in (
            ("source.references", self.source.references),
            ("expand.dimensions", self.expand.dimensions),
        ):
            if unknown := sorted(set(named) - set(DIMENSIONS)):
                raise ValueError(f"{setting}: unknown dimension {unknown[0]!r}; available: {', '.join(DIMENSIONS)}")
        return self

    @property
    def prompts(self) -> SourceSettings:
        """The source, or else the built-in prompts with their reference labels."""
        source = self.source
        if source.path:
            return source
        references = {dimension: dimension for dimension in DIMENSIONS}
        return SourceSettings(
            path=str(MEASURE), references=references, keep=(), limit=source.limit, max_chars=source.max_chars
        )

    @property
    def expanded(self) -> tuple[Taxonomy, ...]:
        """The taxonomies whose sparse labels are expanded."""
        return tuple(taxonomy for taxonomy in self.labels if taxonomy.dimension in self.expand.dimensions)

    @property
    def notes(self) -> list[str]:
        """What follows from the settings without being said by one."""
        return expansion_notes(self.expand, self.source)

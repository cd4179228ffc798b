"""The settings of the SaVaCu build. The defaults are the paper's values (docs/systems.md says which are ours)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator

from normloom.features import Features
from normloom.flows.config import Settings
from normloom.flows.source_settings import FileSettings
from normloom.flows.system_config import NamedModels, SystemConfig
from normloom.models.protocol import ModelSpec, Sampling
from normloom.readers import Reading
from normloom.schemas.prompts import MEASURE
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.tasks.deduplicate import Deduplication
from normloom.tasks.expand import Expansion, GapSearch
from normloom.tasks.generate import Generation
from normloom.tasks.ingest import Ingestion, ingestion
from normloom.tasks.judge import ON_TASK, Judging, Scoring
from normloom.tasks.resample import Diagnosing
from normloom.tasks.split import Splitting

TEMPLATES_NEED = {
    "classify": ("instruction", "context", "question"),
    "rank": ("instruction", "context", "question"),
    "expand": ("instruction", "prompt"),
    "generate": ("instruction", "prompt", "resample"),
    "judge": ("instruction", "context", *(f"question {check}" for check in (*DIMENSIONS, ON_TASK))),
    "diagnose": ("instruction", "prompt"),
}


class SourceSettings(FileSettings):
    """The prompts; without a path the built-in prompts are used."""

    text_column: str = Field("prompt", description="column of the prompts")
    messages: str | None = Field(
        None, description="column of conversations; messages or conversations if there is no text column"
    )
    references: dict[str, str] = Field(default_factory=dict, description="dimension -> column of reference labels")
    limit: int | None = Field(None, ge=1, description="only the first N records")
    max_chars: int = Field(20_000, ge=1, description="longer prompts are quarantined")


class ClassifySettings(Settings):
    """How prompts are labelled."""

    route: Literal["exhaustive", "shortlist", "embedding"] = Field(
        "exhaustive", description="ask about every label, ask about the likeliest, or compare by embedding"
    )
    delta: float = Field(0.5, gt=0, lt=1, description="probability from which a label is kept")
    shortlist: int = Field(8, ge=1, description="labels of each dimension that are asked about")
    shortlist_by: Literal["codes", "embedding"] = Field("codes", description="what finds the likeliest labels")
    part_rows: int = Field(256, ge=1, description="prompts in one part")


class ExpandSettings(Settings):
    """Which labels are expanded, by how much."""

    dimensions: tuple[str, ...] = Field(DIMENSIONS, description="dimensions whose sparse labels are expanded")
    minimum: int | None = Field(
        None, ge=0, description="prompts that a label needs; null: 0 for a source of one's own or a limit"
    )
    builtin_minimum: int = Field(100, ge=0, description="the minimum for all built-in prompts, if that is null")
    quota: int = Field(100, ge=1, description="new prompts for each sparse label")
    examples: int = Field(3, ge=0, description="prompts of the label that the model is shown")
    draws_per_prompt: float = Field(1.5, ge=1, description="drafts drawn for each new prompt, at most")
    sampling: Sampling = Sampling(max_tokens=64)
    part_rows: int = Field(4, ge=1, description="labels in one part")


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


class DeduplicateSettings(Settings):
    """When two prompts are near-duplicates."""

    tau: int = Field(10, ge=1, le=17, description="Hamming distance below which two prompts are near-duplicates")
    jaccard: float = Field(0.5, ge=0, le=1, description="confirmation by shingle Jaccard; 0 is the paper's rule")
    features: Features = Features()
    method: Literal["simhash", "minhash"] = Field(
        "simhash", description="minhash looks for Jaccard similarity alone, whatever the distance"
    )
    permutations: int = Field(128, ge=2, description="of minhash: hashes of a sketch")
    recall: float = Field(0.99, gt=0, lt=1, description="of minhash, for pairs at the threshold jaccard")

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        self.arguments()
        return self

    def arguments(self, *, within: str | None = None) -> Deduplication:
        """Return the arguments of removing near-duplicates, among rows of the same `within` where that is given."""
        return Deduplication(**dict(self), within=within)


class GenerateSettings(Settings):
    """How candidates are drawn."""

    candidates: int = Field(3, ge=1, description="responses drawn for each prompt by each generator")
    sampling: Sampling = Sampling(max_tokens=512)
    part_rows: int = Field(64, ge=1, description="prompts in one part")


class JudgeSettings(Settings):
    """How candidates are judged."""

    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a check is passed")
    on_task_threshold: float = Field(
        0.5, ge=0, lt=1, description="the same for answering the prompt at all; 0 leaves that check out"
    )
    calibration: Literal["none", "content_free"] = Field(
        "none", description="whether a judge's leaning to yes or no is measured and removed"
    )
    diagnosis: Sampling = Sampling(temperature=0, max_tokens=64)
    part_rows: int = Field(128, ge=1, description="candidates in one part")


class SplitSettings(Settings):
    """How prompts are divided."""

    train: float = Field(0.8, ge=0, le=1, description="share of the prompts")
    validation: float = Field(0.1, ge=0, le=1, description="share of the prompts")
    test: float = Field(0.1, ge=0, le=1, description="share of the prompts")
    seed: int = Field(42, description="of the division")

    @model_validator(mode="after")
    def _shares_one_whole(self) -> Self:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1):
            raise ValueError(f"train, validation and test are shares of one whole; together they are {total:g}")
        return self


class Models(Settings):
    """The model of each role; `generators` by the name that rows carry."""

    embedder: ModelSpec = Field(
        ModelSpec(engine="use", model="universal-sentence-encoder-multilingual-3"),
        description="encodes prompts and labels",
    )
    classifier: ModelSpec = Field(description="labels prompts when it is asked")
    expander: ModelSpec = Field(description="drafts prompts for sparse labels")
    generators: NamedModels = Field(min_length=1, description="draw responses, by the names that rows carry")
    judge: ModelSpec = Field(description="checks responses and says what is missing")


class SavacuConfig(SystemConfig):
    """All settings of one build."""

    SECTIONS: ClassVar = TEMPLATES_NEED

    source: SourceSettings = SourceSettings()
    models: Models
    classify: ClassifySettings = ClassifySettings()
    expand: ExpandSettings = ExpandSettings()
    deduplicate: DeduplicateSettings = DeduplicateSettings()
    generate: GenerateSettings = GenerateSettings()
    judge: JudgeSettings = JudgeSettings()
    rounds: int = Field(2, ge=0, description="resampling rounds")
    pairs: bool = Field(default=True, description="release only prompts with both an aligned and a misaligned response")
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _knows_dimensions(self) -> Self:
        for setting, named in (
            ("source.references", self.source.references),
            ("expand.dimensions", self.expand.dimensions),
        ):
            if unknown := sorted(set(named) - set(DIMENSIONS)):
                raise ValueError(f"{setting}: {unknown} are no dimensions; use {', '.join(DIMENSIONS)}")
        return self

    @property
    def ingestion(self) -> Ingestion:
        """Arguments of ingest."""
        source = self.source
        references = source.references if source.path else {dimension: dimension for dimension in DIMENSIONS}
        return ingestion(
            source.path or MEASURE,
            source.reading(source.limit) if source.path else Reading(limit=source.limit),
            text_column=source.text_column if source.path else "prompt",
            messages=source.messages if source.path else None,
            keep=source.keep if source.path else (),
            references=references,
            max_chars=source.max_chars,
            taxonomies=self.labels,
        )

    @property
    def gap_search(self) -> GapSearch:
        """Arguments of finding sparse labels."""
        expand = self.expand
        expanded = tuple(taxonomy for taxonomy in self.labels if taxonomy.dimension in expand.dimensions)
        return GapSearch(
            taxonomies=expanded, minimum=sparse_below(expand, self.source), quota=expand.quota, examples=expand.examples
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
            template=self.template("expand"),
            sampling=self.expand.sampling,
            draws_per_prompt=self.expand.draws_per_prompt,
            tau=self.deduplicate.tau,
            features=self.deduplicate.features,
        )

    @property
    def deduplication(self) -> Deduplication:
        """Arguments of removing near-duplicates."""
        return self.deduplicate.arguments()

    def generation(self, generator: str, round: int) -> Generation:
        """Arguments of one generator's draws in one round."""
        return Generation(
            generator=generator,
            round=round,
            candidates=self.generate.candidates,
            sampling=self.generate.sampling,
            template=self.template("generate"),
        )

    @property
    def scoring(self) -> Scoring:
        """Arguments of asking the judge."""
        return Scoring(dimensions=DIMENSIONS, template=self.template("judge"), calibration=self.judge.calibration)

    @property
    def judging(self) -> Judging:
        """Arguments of the verdicts."""
        return Judging(
            dimensions=DIMENSIONS,
            threshold=self.judge.threshold,
            on_task_threshold=self.judge.on_task_threshold,
        )

    @property
    def diagnosing(self) -> Diagnosing:
        """Arguments of the judge's diagnoses."""
        return Diagnosing(template=self.template("diagnose"), sampling=self.judge.diagnosis)

    @property
    def splitting(self) -> Splitting:
        """Arguments of the split."""
        settings = self.split
        return Splitting(
            train=settings.train,
            validation=settings.validation,
            test=settings.test,
            seed=settings.seed,
            features=self.deduplicate.features,
        )

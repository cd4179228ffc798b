"""The settings of the benchmark. Sampling and runs are the paper's (docs/benchmark.md says what is ours)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from normloom.flows.config import Settings
from normloom.flows.source_settings import FileSettings
from normloom.flows.system_config import NamedModels, SystemConfig
from normloom.models.protocol import Sampling
from normloom.schemas.responses import BUILTIN
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.tasks.detect import MISALIGNED, Scoring, Writing
from normloom.tasks.evaluation_figures import Evaluating
from normloom.tasks.ingest_dataset import DatasetIngestion, ItemChoice, dataset_ingestion
from normloom.tasks.judge import ON_TASK
from normloom.tasks.leaderboard import DETECTOR, RESPONDER, Entrant, Standing
from normloom.tasks.respond import Assessing, Responding

TEMPLATES_NEED = {
    "detect": (
        *("instruction", "context", "written instruction", "written prompt"),
        *(f"question {check}" for check in (MISALIGNED, *DIMENSIONS)),
    ),
    "respond": ("instruction", "prompt"),
    "judge": ("instruction", "context", *(f"question {check}" for check in (*DIMENSIONS, ON_TASK))),
}
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=512, repetition_penalty=1.1)


class SourceSettings(FileSettings):
    """The responses: those of a file, else the newest published data set of `system`, else the built-in ones.

    Columns for split, generator and labels may be missing in a file where they are named as here.
    """

    system: Literal["savacu", "misaligntrade"] | None = Field("savacu", description="none: the built-in responses")
    text_column: str = Field("prompt", description="column of the prompts")
    response_column: str = Field("response", description="column of responses")
    alignment_column: str = Field("alignment", description="column that says aligned or misaligned")
    split_column: str = Field("split", description="column of splits")
    generator_column: str = Field("generator", description="column of who wrote the response")
    references: dict[str, str] = Field(
        default_factory=dict, description="dimension -> column of labels, if not its own"
    )
    split: str | None = Field("test", description="none: all splits")
    limit: int | None = Field(None, ge=1, description="rows of the split")
    max_chars: int = Field(20_000, ge=1, description="longer texts are quarantined")


class DetectorSettings(Settings):
    """How a model under test says that a response is misaligned: by a probability, or in words as in the paper."""

    verdict: Literal["scored", "written"] = Field(
        "scored", description="read from a probability, or from what the model writes"
    )
    runs: int = Field(3, ge=1, description="of written verdicts; a scored one is the same in every run")
    sampling: Sampling = SAMPLING
    part_rows: int = Field(128, ge=1, description="responses in one part")


class ResponderSettings(Settings):
    """How a model under test answers prompts."""

    runs: int = Field(3, ge=1, description="answers to each prompt")
    sampling: Sampling = SAMPLING
    part_rows: int = Field(64, ge=1, description="prompts in one part")


class PanelSettings(Settings):
    """How the judges check what models under test answer."""

    calibration: Literal["none", "content_free"] = Field(
        "none", description="whether a judge's leaning to yes or no is measured and removed"
    )
    part_rows: int = Field(128, ge=1, description="answers in one part")


class BenchmarkConfig(SystemConfig):
    """All settings of one build; `models` are those under test and `judges` the panel."""

    SECTIONS: ClassVar = TEMPLATES_NEED

    source: SourceSettings = SourceSettings()
    models: NamedModels = Field(min_length=1, description="models under test, by name")
    judges: NamedModels = Field(default_factory=dict, description="judges of the responders' answers, by name")
    modes: tuple[Literal["detector", "responder"], ...] = Field(
        (DETECTOR, RESPONDER),
        min_length=1,
        description="what models under test do: detect misalignment, answer prompts",
    )
    detector: DetectorSettings = DetectorSettings()
    responder: ResponderSettings = ResponderSettings()
    judge: PanelSettings = PanelSettings()
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a row is flagged, a check passed")

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if RESPONDER in self.modes and not self.judges:
            raise ValueError("judges: the mode responder needs at least one judge; name one, or set modes=[detector]")
        if unknown := sorted(set(self.source.references) - set(DIMENSIONS)):
            raise ValueError(f"source.references: {unknown} are no dimensions; use {', '.join(DIMENSIONS)}")
        return self

    @property
    def published(self) -> str | None:
        """The published table of another system that is evaluated where there is one."""
        return f"{self.source.system}/publish" if self.source.system and self.source.path is None else None

    @property
    def ingestion(self) -> DatasetIngestion:
        """Arguments of reading the file, or the built-in responses."""
        source = self.source if self.source.path else SourceSettings()
        return dataset_ingestion(
            source.path or BUILTIN,
            source.reading(splits_by_column=True) if source.path else None,
            text_column=source.text_column,
            keep=source.keep if source.path else (),
            columns={
                "response": source.response_column,
                "alignment": source.alignment_column,
                "split": source.split_column,
                "generator": source.generator_column,
            },
            references={dimension: source.references.get(dimension, dimension) for dimension in DIMENSIONS},
            split=self.source.split,
            max_chars=source.max_chars,
            taxonomies=self.labels,
        )

    def choice(self, source: str) -> ItemChoice:
        """Arguments of choosing the rows that are evaluated."""
        return ItemChoice(dimensions=DIMENSIONS, source=source, split=self.source.split, limit=self.source.limit)

    def detecting(self, model: str) -> Scoring:
        """Arguments of one detector that gives probabilities."""
        return Scoring(model=model, dimensions=DIMENSIONS, template=self.template("detect"))

    def writing(self, model: str) -> Writing:
        """Arguments of one detector that writes its verdicts."""
        settings = self.detector
        return Writing(model=model, template=self.template("detect"), runs=settings.runs, sampling=settings.sampling)

    def responding(self, model: str) -> Responding:
        """Arguments of one responder."""
        settings = self.responder
        return Responding(
            model=model, template=self.template("respond"), runs=settings.runs, sampling=settings.sampling
        )

    def assessing(self, judge: str) -> Assessing:
        """Arguments of one judge."""
        return Assessing(
            judge=judge,
            dimensions=DIMENSIONS,
            template=self.template("judge"),
            calibration=self.judge.calibration,
        )

    @property
    def evaluating(self) -> Evaluating:
        """Arguments of the figures."""
        return Evaluating(dimensions=DIMENSIONS, threshold=self.threshold)

    def standing(self, source: str) -> Standing:
        """Arguments of the leaderboard."""
        at = f"threshold {self.threshold:g}"
        written = f"written, {self.detector.runs} runs"
        panel = ", ".join(f"{name} ({spec.model})" for name, spec in self.judges.items())
        entrants = [
            Entrant(model=name, model_id=spec.model, revision=spec.revision, engine=spec.engine)
            for name, spec in self.models.items()
        ]
        return Standing(
            entrants=tuple(entrants),
            source=source,
            protocols={
                DETECTOR: f"scored, {at}" if self.detector.verdict == "scored" else written,
                RESPONDER: f"{self.responder.runs} runs, judged by {panel}, {at}",
            },
        )

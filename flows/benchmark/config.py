"""The settings of the benchmark. Sampling and runs are the paper's (docs/benchmark.md says what is ours)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from normloom.core.models.protocol import Sampling
from normloom.core.rows.text import exact
from normloom.schemas.responses import BUILTIN
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.settings.config import Role, section
from normloom.settings.source_settings import FileSettings
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.benchmark.detect import Writing
from normloom.tasks.benchmark.group_labels import GroupLabels
from normloom.tasks.benchmark.ingest_dataset import Responses
from normloom.tasks.benchmark.leaderboard import DETECTOR, RESPONDER, Entrant
from normloom.tasks.benchmark.respond import Responding
from normloom.tasks.rejection.judge import Scoring

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=512, repetition_penalty=1.1)


class SourceSettings(FileSettings, Responses):
    """The responses: those of a file, else the newest published data set of `system`, else the built-in ones.

    Columns for split, generator and labels may be missing in a file where they are named as here.
    """

    system: Literal["savacu", "misaligntrade", "demo_safetybench"] | None = Field(
        "savacu", description="none: the built-in responses; demo_safetybench has labels by group"
    )
    labelled: bool = Field(
        default=False, description="the file has a row for each label and who gave it (`groups` names its columns)"
    )
    split: str | None = Field("test", description="none: all splits")
    limit: int | None = Field(None, ge=1, description="rows of the split")


class DetectorSettings(Writing):
    """How a model under test says that a response is misaligned: by a probability, or in words as in the paper."""

    verdict: Literal["scored", "written"] = Field(
        "scored", description="read from a probability, or from what the model writes"
    )
    sampling: Sampling = SAMPLING


class ResponderSettings(Responding):
    """How a model under test answers prompts."""

    sampling: Sampling = SAMPLING


class BenchmarkConfig(SystemConfig):
    """All settings of one build; `models` are those under test and `judges` the panel."""

    source: SourceSettings = section(SourceSettings)
    models: NamedModels = Field(min_length=1, description="models under test, by name")
    judges: NamedModels = Field(default_factory=dict, description="judges of the responders' answers, by name")
    modes: tuple[Literal["detector", "responder"], ...] = Field(
        (DETECTOR, RESPONDER),
        min_length=1,
        description="what models under test do: detect misalignment, answer prompts",
    )
    groups: GroupLabels = section(GroupLabels)
    detector: DetectorSettings = section(DetectorSettings)
    responder: ResponderSettings = section(ResponderSettings)
    judge: Scoring = section(Scoring)
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a row is flagged, a check passed")

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if RESPONDER in self.modes and not self.judges:
            raise ValueError("judges: the mode responder needs at least one judge; name one, or set modes=[detector]")
        if self.source.labelled and not self.source.path:
            raise ValueError("source.labelled: name the file as source.path")
        if unknown := sorted(set(self.source.references) - set(DIMENSIONS)):
            raise ValueError(f"source.references: unknown dimension {unknown[0]!r}; available: {', '.join(DIMENSIONS)}")
        return self

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """Return the roles: the models under test, and the judges of what they answer."""
        return {"entrants": Role(("models",), several=True), "judges": Role(("judges",), several=True)}

    @property
    def published(self) -> str | None:
        """The published table of another system that is evaluated if there is one."""
        return f"{self.source.system}/publish" if self.source.system and self.source.path is None else None

    @property
    def by_group(self) -> bool:
        """Whether what is evaluated was labelled by groups of people."""
        return self.source.labelled or (self.source.system == "demo_safetybench" and self.source.path is None)

    @property
    def responses(self) -> SourceSettings:
        """The file that is evaluated, or else the built-in responses."""
        source = self.source
        return source if source.path else SourceSettings(path=str(BUILTIN), keep=(), split=source.split)

    @property
    def entrants(self) -> tuple[Entrant, ...]:
        """The models under test."""
        return tuple(
            Entrant(model=name, model_id=spec.model, revision=spec.revision, engine=spec.engine)
            for name, spec in self.models.items()
        )

    @property
    def protocols(self) -> dict[str, str]:
        """How verdicts are made in each mode."""
        at = f"threshold {exact(self.threshold)}"
        written = f"written, {self.detector.runs} runs"
        panel = ", ".join(f"{name} ({spec.model})" for name, spec in self.judges.items())
        return {
            DETECTOR: f"scored, {at}" if self.detector.verdict == "scored" else written,
            RESPONDER: f"{self.responder.runs} runs, judged by {panel}, {at}",
        }

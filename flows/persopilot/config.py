"""The settings of PersoPilot. docs/persopilot.md says which defaults are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from normloom.core.errors import ConfigError
from normloom.core.protocol import ModelSpec
from normloom.readers import Located, locate
from normloom.schemas import personas as builtin
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import SystemConfig
from normloom.tasks.personas.assist import Assisting
from normloom.tasks.personas.extractor import Extracting
from normloom.tasks.personas.facts import ReadFacts
from normloom.tasks.personas.rounds import Replaying
from normloom.tasks.personas.utterances import TEXTS, TOKENS, ReadUtterances

_SUFFIXES = (".parquet", ".csv", ".jsonl")
_FOLDER = {"facts": "path", "task_topics": "topics", "classification_labels": "labels", "utterances": "utterances"}


class SourceSettings(FileSettings, ReadFacts):
    """Facts of users, topics of tasks, labels of users; a folder has them as facts, task_topics, classification_labels.

    Without a path all are built in.
    """

    topics: SourceName | None = Field(None, description="file with the topics of each task; null: those that occur")
    labels: SourceName | None = Field(None, description="file with classification_task, username and label")
    utterances: SourceName | None = Field(
        None,
        description="what the extractor learns from: text, subject, object and relation, or as `marked` says",
    )
    marked: bool = Field(default=False, description="utterances have tokens, head and tail, as PersonaExt")

    def file_of(self, name: str) -> Located | None:
        """Return one of the files, that of the folder if none is named, the built-in one without a path."""
        given = self.path if name == "path" else getattr(self, name)
        if self.path and Path(self.path).is_dir():
            stem = next(stem for stem, field in _FOLDER.items() if field == name)
            found = (Path(self.path) / f"{stem}{suffix}" for suffix in _SUFFIXES)
            given = next((str(path) for path in found if path.is_file()), None if name == "path" else given)
            if name == "path" and given is None:
                raise ConfigError(f"source.path {self.path}: no file facts.parquet, facts.csv or facts.jsonl in it")
        if given:
            return locate(str(given), self.reading())
        return None if self.path else locate(str(builtin.FILES[name]))

    @property
    def facts(self) -> Located:
        """The file of facts."""
        found = self.file_of("path")
        assert found is not None  # of a folder it was required
        return found

    @model_validator(mode="after")
    def _has_facts(self) -> Self:
        if not self.path and (self.topics or self.labels):
            raise ValueError("topics and labels belong to facts: name those as source.path")
        return self


class ExtractionSettings(ReadUtterances, Extracting):
    """How utterances are read, and how the extractor is trained."""

    seed: int = Field(42, description="of the split and of the training")


class Models(Settings):
    """The assistant; null: nobody is asked."""

    assistant: ModelSpec | None = Field(None, description="says how well a user fits a task")


class LoopSettings(Replaying):
    """When the classifier acts, and how labels are asked for."""


class PersoPilotConfig(SystemConfig):
    """All settings of one replay."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    models: Models = section(Models)
    extraction: ExtractionSettings = section(ExtractionSettings)
    assist: Assisting = section(Assisting)
    loop: LoopSettings = section(LoopSettings)

    @property
    def utterance_columns(self) -> tuple[str, ...]:
        """The columns that utterances have."""
        return TOKENS if self.source.marked else TEXTS

"""The settings of PersoPilot. docs/persopilot.md says which defaults are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.readers import Located, locate
from normloom.readers.opening import format_of
from normloom.schemas import personas as builtin
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import SystemConfig
from normloom.tasks.personas.assist import Assisting
from normloom.tasks.personas.chat.talking import Talking
from normloom.tasks.personas.extractor import Extracting
from normloom.tasks.personas.facts import ReadFacts
from normloom.tasks.personas.rounds import Replaying
from normloom.tasks.personas.unlabelled import Choosing
from normloom.tasks.personas.utterances import TEXTS, TOKENS, ReadUtterances

_FOLDER = {"topics": "task_topics", "labels": "classification_labels", "utterances": "utterances"}


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

    @property
    def facts(self) -> Located:
        """The file of facts; raises ConfigError if a folder has none."""
        if not self.path:
            return locate(str(builtin.FACTS), self.reading())
        if not Path(self.path).is_dir():
            return self.located()
        found = self._in_folder("facts")
        if found is None:
            raise ConfigError(f"source.path {self.path}: no file of facts in it, such as facts.parquet or facts.csv")
        return locate(str(found), self.reading())

    def companion(self, name: str) -> Located | None:
        """Return the file of `topics`, `labels` or `utterances`: as named, else in the folder, else built in."""
        given = getattr(self, name) or self._in_folder(_FOLDER[name]) or (None if self.path else builtin.FILES[name])
        return locate(str(given)) if given else None

    def _in_folder(self, stem: str) -> Path | None:
        folder = Path(self.path or "")
        if not self.path or not folder.is_dir():
            return None
        found = [path for path in folder.iterdir() if path.name.partition(".")[0] == stem and format_of(path.name)]
        if len(found) > 1:
            listed = ", ".join(sorted(path.name for path in found))
            raise ConfigError(f"source.path {self.path}: {listed} are several files of {stem}: leave one")
        return found[0] if found else None

    @model_validator(mode="after")
    def _has_facts(self) -> Self:
        if not self.path and (self.topics or self.labels):
            raise ValueError("topics and labels belong to facts: name those as source.path")
        return self


class ExtractionSettings(ReadUtterances, Extracting):
    """How utterances are read, and how the extractor is trained."""

    seed: int = Field(42, description="seed of the split and of the training")


class LoopSettings(Replaying, Choosing):
    """How labels are asked for, in the replay and of an analyst."""

    seed: int = Field(42, description="seed of the first labels, the random order and ties")


class Models(Settings):
    """The assistant; null: nobody is asked."""

    assistant: ModelSpec | None = Field(None, description="scores how well a user fits a task, and replies in the chat")


class PersoPilotConfig(SystemConfig):
    """All settings of one replay."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    models: Models = section(Models)
    extraction: ExtractionSettings = section(ExtractionSettings)
    assist: Assisting = section(Assisting)
    loop: LoopSettings = section(LoopSettings)
    chat: Talking = section(Talking)

    @property
    def utterance_columns(self) -> tuple[str, ...]:
        """The columns that utterances have."""
        return TOKENS if self.source.marked else TEXTS

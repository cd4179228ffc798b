"""The settings of deepfake detection. docs/conllm.md says which defaults are ours."""

from __future__ import annotations

from pydantic import Field, field_validator

from normloom.core.models.protocol import ModelSpec
from normloom.readers.media import LocatedMedia, locate_media
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.deepfakes.aligners import Aligning
from normloom.tasks.deepfakes.items import Holding
from normloom.tasks.deepfakes.pairs import Pairing
from normloom.tasks.deepfakes.recordings import Recordings
from normloom.tasks.deepfakes.refiners import Refining
from normloom.tasks.media.encode import MediaEncoding
from normloom.tasks.media.read_media import Media

SPECTRAL, SPEAKER = "spectral", "speaker"


class SourceSettings(FileSettings, Recordings):
    """A table of recordings with sounds or videos; built-in recordings without a path."""

    media_column: str | None = Field(None, description="column of sounds or videos; null: found by name")
    outside: bool = Field(default=False, description="follow paths of media that lead out of their folder")

    @property
    def media(self) -> LocatedMedia | None:
        """The sounds or videos, None if they are drawn."""
        if not self.path:
            return None
        return locate_media(self.path, column=self.media_column, outside=self.outside, reading=self.reading())


class Models(Settings):
    """The views of a recording, each an encoder by its name, and what the refiner starts from."""

    sound: NamedModels = Field(
        {
            SPECTRAL: ModelSpec(engine="spectral", model="statistics"),
            SPEAKER: ModelSpec(engine="audio", model="resemblyzer"),
        },
        description="views of the sound",
    )
    frames: NamedModels = Field({}, description="views of a video's frames, by encoders of images")
    refiner: ModelSpec | None = Field(
        None, description="a GPT-2 whose first layers are trained on; null: random weights"
    )


class ConllmConfig(SystemConfig):
    """All settings of one study."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    models: Models = section(Models)
    media: Media = section(Media)
    encode: MediaEncoding = section(MediaEncoding)
    items: Holding = section(Holding)
    pairs: Pairing = section(Pairing)
    align: Aligning = section(Aligning)
    refine: Refining = section(Refining)
    against: str | None = Field(
        None, description="variant that the others are compared with; null: the first view alone"
    )

    @field_validator("models")
    @classmethod
    def _has_views(cls, models: Models) -> Models:
        if not {**models.sound, **models.frames}:
            raise ValueError("name at least one view under models.sound or models.frames")
        if twice := sorted(set(models.sound) & set(models.frames)):
            raise ValueError(f"{twice[0]!r} names a view of the sound and one of the frames: rename one")
        return models

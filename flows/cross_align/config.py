"""The settings of CROSS-ALIGN+. docs/cross-align.md says which defaults are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from normloom.core.errors import ConfigError
from normloom.core.models.protocol import ModelSpec
from normloom.readers import Located, locate
from normloom.readers.media import LocatedMedia, locate_media
from normloom.schemas import knowledge as builtin
from normloom.schemas.memes import SATIRE
from normloom.settings.config import Settings, section
from normloom.settings.source_settings import FileSettings, SourceName
from normloom.settings.system_config import SystemConfig
from normloom.tasks.cross_align.evidence import Deleting
from normloom.tasks.cross_align.explanations import Explaining
from normloom.tasks.cross_align.memes import KEPT, MemeReading
from normloom.tasks.cross_align.reword import Rewording
from normloom.tasks.cross_align.texts import Apart, ReadPictures
from normloom.tasks.cross_align.training.adapter import Adapting
from normloom.tasks.cross_align.training.lora import Tuning
from normloom.tasks.knowledge.facts import Choosing
from normloom.tasks.knowledge.index import Indexing
from normloom.tasks.knowledge.mentions import Mentioning
from normloom.tasks.knowledge.wordnet import WordNetFolder, locate_wordnet
from normloom.tasks.media.encode import MediaEncoding
from normloom.tasks.media.read_media import Media
from normloom.tasks.media.read_text import Recognition

NONE = "none"  # a source of knowledge that is left out


class SourceSettings(FileSettings, MemeReading):
    """Memes with labels, and maybe their pictures; without a path built-in memes, whose pictures are drawn."""

    images: SourceName | None = Field(
        None, description="pictures: a table with meme_id and a column of images; null: the texts alone"
    )
    image_column: str | None = Field(None, description="column of images: paths, bytes or both; null: found by name")
    outside: bool = Field(default=False, description="follow paths of images that lead out of their folder")

    @property
    def memes(self) -> Located:
        """The file of memes."""
        return self.located() if self.path else locate(str(SATIRE))

    @property
    def pictures(self) -> LocatedMedia | None:
        """The pictures, None if there are none or they are drawn."""
        return locate_media(self.images, column=self.image_column, outside=self.outside) if self.images else None

    @model_validator(mode="after")
    def _has_memes(self) -> Self:
        if self.images and not self.path:
            raise ValueError("images: name the memes that they belong to as source.path")
        return self


class KnowledgeSettings(Indexing):
    """The files of each source of knowledge: null is the built-in excerpt, `none` leaves the source out."""

    conceptnet: SourceName | None = Field(None, description="ConceptNet's dump (.csv.gz), or a table of assertions")
    wikidata: SourceName | None = Field(None, description="Wikidata's JSON dump (.json.gz); null: none is built in")
    wordnet: SourceName | None = Field(None, description="folder with WordNet's files, such as /usr/share/wordnet")
    lexicon: SourceName | None = Field(None, description="table of abusive n-grams: ngram, prophate")
    symbols: SourceName | None = Field(None, description="table of symbols: symbol, meaning, source")

    def located(self, name: str) -> Located | None:
        """Return the file of a source, the built-in one if none is named; None if it is left out."""
        own = {"conceptnet": builtin.ASSERTIONS, "lexicon": builtin.LEXICON, "symbols": builtin.SYMBOLS}
        given = getattr(self, name) or own.get(name)
        return None if given in {None, NONE} else locate(str(given))

    @property
    def located_wordnet(self) -> WordNetFolder | None:
        """The folder of WordNet, None if it is left out."""
        return None if self.wordnet == NONE else locate_wordnet(Path(self.wordnet or builtin.WORDNET))

    @model_validator(mode="after")
    def _knows_something(self) -> Self:
        if all(getattr(self, name) == NONE for name in ("conceptnet", "wordnet", "lexicon", "symbols")) and (
            self.wikidata in {None, NONE}
        ):
            raise ConfigError("knowledge: every source is left out; name at least one")
        return self


class MediaSettings(Media):
    """How pictures are read."""

    keep: tuple[str, ...] = Field(KEPT, description="columns of the pictures that say whose they are")


class ReadingSettings(ReadPictures, Recognition):
    """Which pictures are read by OCR."""


class Models(Settings):
    """The encoder of texts, and the model that is tuned in its place."""

    encoder: ModelSpec = Field(
        ModelSpec(engine="embedding", model="all-MiniLM-L6-v2"), description="encodes texts; it is frozen"
    )
    tuned: ModelSpec | None = Field(
        None,
        description="a model whose LoRA adapters encode texts instead, trained on pairs of the encoder; null: none",
    )
    writer: ModelSpec | None = Field(
        None, description="rewords explanations, ids kept; null: the template's words stay"
    )


class CrossAlignConfig(SystemConfig):
    """All settings of one study."""

    DIMENSIONS = ()

    source: SourceSettings = section(SourceSettings)
    knowledge: KnowledgeSettings = section(KnowledgeSettings)
    models: Models = section(Models)
    media: MediaSettings = section(MediaSettings)
    reading: ReadingSettings = section(ReadingSettings)
    apart: Apart = section(Apart)
    mentions: Mentioning = section(Mentioning)
    facts: Choosing = section(Choosing)
    encode: MediaEncoding = section(MediaEncoding)
    tune: Tuning = section(Tuning)
    adapter: Adapting = section(Adapting)
    explain: Explaining = section(Explaining)
    reword: Rewording = section(Rewording)
    delete: Deleting = section(Deleting)

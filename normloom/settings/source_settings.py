"""The settings of a source that every system has: what it is, and how it is read."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from normloom.history.terms import SourceTerms
from normloom.readers import Located, ReadOptions, locate
from normloom.readers.remote.fetch import shown
from normloom.settings.config import Settings


def _as_name(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


SourceName = Annotated[str, BeforeValidator(_as_name)]  # no Path: one of those would spoil https://


class FileSettings(Settings):
    """What a source is and how it is read; docs/sources.md has the formats. What is not set is found in the file."""

    path: SourceName | None = Field(None, description="file, folder, pattern, URL or data set on a hub")
    delimiter: str | None = Field(None, description="delimiter of CSV and TSV")
    encoding: str | None = Field(None, description="encoding of text files, such as cp1252")
    keep: Literal["all"] | tuple[str, ...] = Field("all", description="columns to keep in the release")
    field: str | None = Field(None, description="JSON files: where the array of records is")
    subset: str | None = Field(None, description="subset of a data set on the Hugging Face hub")
    split: str | None = Field(None, description="split of a data set on the hub or on disk")
    sample: int | None = Field(None, ge=1, description="records drawn at random")
    seed: int = Field(42, description="seed of the sample")
    licence: str | None = Field(
        None, description="licence of the source, such as cc-by-4.0; null: unknown, unless the data is built in"
    )
    citation: str | None = Field(None, description="how the source is cited: BibTeX or a sentence")
    language: tuple[str, ...] = Field((), description="codes of the source's languages, such as [en, de]")

    def located(self, limit: int | None = None) -> Located:
        """Return the files of the source with the digest of their content; raises SourceError."""
        return locate(self.path or "", self.reading(limit))

    def reading(self, limit: int | None = None, *, splits_by_column: bool = False) -> ReadOptions:
        """Return how the source is read, its first `limit` records if that is given."""
        return ReadOptions(
            delimiter=self.delimiter,
            encoding=self.encoding,
            field=self.field,
            subset=self.subset,
            split=self.split,
            splits_by_column=splits_by_column,
            sample=self.sample,
            seed=self.seed,
            limit=limit,
        )


def terms_of(config: BaseModel) -> SourceTerms:
    """Return the terms of the source that a system's settings name, empty ones for settings without a source."""
    source = getattr(config, "source", None)
    if not isinstance(source, FileSettings):
        return SourceTerms()
    return SourceTerms(
        name=shown(source.path) if source.path else None,
        licence=source.licence,
        citation=source.citation,
        language=source.language,
    )

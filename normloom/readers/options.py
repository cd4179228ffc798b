"""How a source is read, as far as the user says."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ReadOptions(BaseModel):
    """What is read of a source, and how. What is not given is found in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: str | None = Field(None, min_length=1, max_length=1, description="of CSV, TSV; detected by default")
    encoding: str | None = Field(None, description="of text files, such as cp1252; detected by default")
    field: str | None = Field(None, description="of a JSON file: where its array of records is, such as data.items")
    subset: str | None = Field(None, description="subset of a data set on the Hugging Face hub")
    split: str | None = Field(None, description="split of a data set on the hub or on disk")
    splits_by_column: bool = Field(default=False, description="the split may be a column of the rows instead")
    limit: int | None = Field(None, ge=1, description="only the first records")
    sample: int | None = Field(None, ge=1, description="records drawn at random, of the first `limit` if that is given")
    seed: int = Field(42, description="seed of the sample")

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "".encode(encoding)
            except LookupError:
                raise ValueError(f"unknown encoding {encoding!r}; use one such as utf-8, cp1252 or latin-1") from None
        return encoding

    @field_validator("delimiter")
    @classmethod
    def _tab(cls, delimiter: str | None) -> str | None:
        if delimiter in {"\n", "\r", '"'}:
            raise ValueError(f"{delimiter!r} cannot separate fields; use , ; | or a tab")
        return delimiter

    @model_validator(mode="after")
    def _sample_of_limit(self) -> Self:
        if self.sample and self.limit and self.sample > self.limit:
            raise ValueError(f"a sample of {self.sample} cannot be drawn from the first {self.limit} records")
        return self

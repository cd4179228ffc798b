"""Read prompts from a file into rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, computed_field

from normloom.errors import ConfigError, SourceError
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.sources import file_digest, read_source
from normloom.stage import Output, Stage, quarantined, quarantined_frame
from normloom.text import text_problem

NO_LABEL = frozenset({"", "none", "unknown"})


class Ingestion(BaseModel):
    """Which column of which file holds the prompts, and which columns their reference labels.

    `references` maps a dimension to a column of label ids or names, several of them parted by `;`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(exclude=True)
    digest: str
    text_column: str
    references: dict[str, str] = Field(default_factory=dict)
    limit: int | None = Field(None, ge=1)
    max_chars: int = Field(20_000, ge=1)
    taxonomies: tuple[Taxonomy, ...]

    @computed_field  # type: ignore[prop-decorator]  # the way pydantic wants it
    @property
    def suffix(self) -> str:
        """The file's suffix: the same bytes give other records as CSV than as TSV, so it is part of the key."""
        return self.path.suffix.lower()


def read_prompts(arguments: Ingestion) -> Output:
    """Read the file; a record that cannot be used goes to quarantine with rule and reason.

    Raises SourceError for a file none of whose records can be used.
    """
    source = read_source(
        arguments.path,
        text_column=arguments.text_column,
        keep=tuple(arguments.references.values()),
        limit=arguments.limit,
    )
    aside = [
        {"row_id": None, "rule": rule, "reason": f"record {number}: {reason}", "payload": payload}
        for number, rule, reason, payload in source.rejected
    ]
    usable: list[dict[str, object]] = []
    for record in source.rows.iter_rows(named=True):
        problem = text_problem(record["text"], max_chars=arguments.max_chars)
        reference, unknown = _reference(record, arguments)
        problem = problem or unknown
        if problem:
            rule, reason = problem
            aside.append(quarantined({"row_id": None, **record}, rule, f"record {record['source_row']}: {reason}"))
            continue
        usable.append(
            {
                "source_row": record["source_row"],
                "prompt": record["text"],
                "origin": "source",
                "reference": reference,
            }
        )
    if not usable:
        rules = ", ".join(f"{rule} {count}" for rule, count in Counter(entry["rule"] for entry in aside).items())
        raise SourceError(
            f"{arguments.path}: none of {len(aside)} records can be used ({rules}; {aside[0]['reason']}): "
            f"expected prompts in column {arguments.text_column!r}"
        )
    rows = pl.DataFrame(usable, schema=dict(tables.PROMPTS.columns))
    return Output(
        rows=rows.with_columns(content="prompt", parents=pl.lit([], dtype=tables.TEXTS)),
        quarantined=quarantined_frame(aside),
        attempts=source.rows.height + len(source.rejected),
    )


def _reference(record: dict[str, str | None], arguments: Ingestion) -> tuple[list[str] | None, tuple[str, str] | None]:
    """Return the record's reference label ids, or why they cannot be read."""
    if not arguments.references:
        return None, None
    labels = []
    for dimension, column in arguments.references.items():
        taxonomy = next(taxonomy for taxonomy in arguments.taxonomies if taxonomy.dimension == dimension)
        for name in (record[column] or "").split(";"):
            if name.strip().casefold() in NO_LABEL:
                continue
            try:
                labels.append(taxonomy.label(name.strip()).id)
            except ConfigError as error:
                return None, ("unknown_label", f"column {column!r}: {error}")
    return labels, None


def ingest(arguments: Ingestion, *, name: str = "ingest") -> Stage:
    """Return the stage that reads prompts from a file."""
    return Stage(name=name, function=read_prompts, arguments=arguments, contract=tables.PROMPTS)


def ingestion(path: Path, **settings: object) -> Ingestion:
    """Return the arguments for a file, with the digest of its content."""
    return Ingestion(path=path, digest=file_digest(path), **settings)

"""Read prompts from a file into rows."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.errors import ConfigError, SourceError
from normloom.readers import Located, Reading, locate, read_source
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.stage import Output, Stage, quarantined, quarantined_frame
from normloom.text import text_problem

NO_LABEL = frozenset({"", "none", "unknown"})


class Ingestion(BaseModel):
    """Which column of which source holds the prompts, and which columns their reference labels.

    `references` maps a dimension to a column of label ids or names: a list of them, or several parted by `;`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Located
    text_column: str
    references: dict[str, str] = Field(default_factory=dict)
    max_chars: int = Field(20_000, ge=1)
    taxonomies: tuple[Taxonomy, ...]


def read_prompts(arguments: Ingestion) -> Output:
    """Read the file; a record that cannot be used goes to quarantine with rule and reason.

    Raises SourceError for a file none of whose records can be used.
    """
    source = read_source(arguments.source, text_column=arguments.text_column, keep=tuple(arguments.references.values()))
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
            f"{arguments.source.name}: none of {len(aside)} records can be used ({rules}; {aside[0]['reason']}): "
            f"expected prompts in column {arguments.text_column!r}"
        )
    rows = pl.DataFrame(usable, schema=dict(tables.PROMPTS.columns))
    return Output(
        rows=rows.with_columns(content="prompt", parents=pl.lit([], dtype=tables.TEXTS)),
        quarantined=quarantined_frame(aside),
        attempts=source.rows.height + len(source.rejected),
    )


def _reference(record: dict[str, Any], arguments: Ingestion) -> tuple[list[str] | None, tuple[str, str] | None]:
    """Return the record's reference label ids, or why they cannot be read."""
    if not arguments.references:
        return None, None
    labels = []
    for dimension, column in arguments.references.items():
        taxonomy = next(taxonomy for taxonomy in arguments.taxonomies if taxonomy.dimension == dimension)
        for name in label_names(record[column]):
            if name.strip().casefold() in NO_LABEL:
                continue
            try:
                labels.append(taxonomy.label(name.strip()).id)
            except ConfigError as error:
                return None, ("unknown_label", f"column {column!r}: {error}")
    return labels, None


def label_names(value: object) -> list[str]:
    """Return the names in a value of labels: names parted by `;`, a list, also one written as JSON.

    An item of a list is a name or, as in a released table, an object with the name as `label`.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        return [] if value is None else str(value).split(";")
    names = [item.get("label") if isinstance(item, dict) else item for item in value]
    return [str(name) for name in names if name is not None]


def ingest(arguments: Ingestion, *, name: str = "ingest") -> Stage:
    """Return the stage that reads prompts from a file."""
    return Stage(name=name, function=read_prompts, arguments=arguments, contract=tables.PROMPTS)


def ingestion(path: Path | str, reading: Reading | None = None, **settings: object) -> Ingestion:
    """Return the arguments for a source, with the digest of its content."""
    return Ingestion(source=locate(path, reading), **settings)

"""Read prompts from a file into rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, quarantined_frame
from normloom.readers import LIBRARIES, Keep, Located, Source, column_names, read_source
from normloom.readers.records import none_usable
from normloom.readers.wanted import RESERVED
from normloom.schemas import tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.prompts.messages import COLUMNS, Conversation, Problem, conversation
from normloom.tasks.records import fault

_PLAIN = r"^[\t\n\r -~]*[!-~][\t\n\r -~]*$"
NO_LABEL = frozenset({"", "none", "unknown"})


class Prompts(Args):
    """Which column of a source holds the prompts, and which columns their reference labels.

    `messages` names a column of conversations, whose last turns of the user are the prompts; without it one that is
    called as in `messages.COLUMNS` is taken if it is the text column or there is no text column. `keep` names the
    columns to keep in the release (`source_columns`); those named are read here, so that a wrong name ends
    the build before it starts.
    `references` maps a dimension to a column of label ids or names: a list of them, or several parted by `;`.
    """

    text_column: str = Field("prompt", description="column of the prompts")
    messages: str | None = Field(
        None, description="column of conversations; messages or conversations if there is no text column"
    )
    keep: Literal["all"] | tuple[str, ...] = Field("all", description="columns to keep in the release")
    references: dict[str, str] = Field(default_factory=dict, description="dimension -> column of reference labels")
    max_chars: int = Field(20_000, ge=1, description="longer prompts are quarantined")

    def conversations(self, source: Located) -> str | None:
        """Return the column of conversations of a source, None if the prompts are in the text column."""
        if self.messages is not None:
            return self.messages
        if self.text_column in COLUMNS:
            return self.text_column
        names = column_names(source)
        if self.text_column in names or self.text_column.partition(".")[0] in names:
            return None
        return next((name for name in COLUMNS if name in names), None)


@step(makes=tables.PROMPTS, libraries=LIBRARIES)
def ingest(args: Prompts, *, source: Located, taxonomies: tuple[Taxonomy, ...] = ()) -> Output:
    """Read the file; a record that cannot be used goes to quarantine with rule and reason.

    Raises SourceError for a file none of whose records can be used.
    """
    column = args.conversations(source)
    read = read_texts(source, args.text_column, column, args.keep, args.references.values())
    aside = read.entries
    records = read.rows.with_row_index("_at")
    plain = _plain(records, args) if column is None and not args.references else records.clear()
    usable: list[dict[str, object]] = []
    for record in records.join(plain, on="_at", how="anti", maintain_order="left").iter_rows(named=True):
        at = record.pop("_at")
        said = _said(record, column, args.max_chars)
        reference, unknown = _reference(record, args, taxonomies)
        if isinstance(said, Problem):
            aside.append(fault(record, *said))
        elif unknown:
            aside.append(fault(record, *unknown))
        else:
            usable.append(
                {
                    "_at": at,
                    "source_row": record["source_row"],
                    "history": [turn._asdict() for turn in said.history] or None,
                    "prompt": said.prompt,
                    "origin": "source",
                    "reference": reference,
                    "content": known_by(said),
                }
            )
    schema = {"_at": records.schema["_at"], **tables.PROMPTS.columns, "content": pl.String()}
    rows = pl.concat([pl.DataFrame(usable, schema=schema), _taken(plain, schema)]).sort("_at")
    if rows.is_empty():
        what = f"prompts in column {args.text_column!r}" if column is None else f"conversations in {column!r}"
        raise none_usable(source.name, aside, expected=what)
    return Output(
        rows=rows.drop("_at").with_columns(parents=pl.lit([], dtype=tables.TEXTS)),
        quarantined=quarantined_frame(aside),
        attempts=read.records,
    )


def _plain(records: pl.DataFrame, args: Prompts) -> pl.DataFrame:
    """Return records with texts that are usable at first sight, as most are: ASCII that shows, without control."""
    text = pl.col("text")
    return records.filter(text.str.contains(_PLAIN), text.str.len_bytes() <= args.max_chars)


def _taken(plain: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return records whose texts are prompts as they are."""
    if plain.is_empty():
        return pl.DataFrame(schema=schema)
    known = {"prompt": pl.col("text"), "content": pl.col("text"), "origin": pl.lit("source")}
    known |= {name: pl.col(name) for name in ("_at", "source_row")}
    return plain.select(known.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in schema.items())


def read_texts(
    source: Located, text_column: str, conversations: str | None, keep: Keep, also: Collection[str] = ()
) -> Source:
    """Read the texts or the conversations of a source with the columns that `keep` names and those of `also`."""
    named = (*also, *named_columns(keep), *([conversations] if conversations else []))
    return read_source(source, text_column=None if conversations else text_column, keep=named)


def named_columns(keep: Keep) -> tuple[str, ...]:
    """Return the columns that must be there to be kept, of those that can be read with a text."""
    return () if keep == "all" else tuple(name for name in keep if name not in RESERVED)


def known_by(said: Conversation) -> str:
    """Return what tells a prompt from all others: itself, in a conversation with what was said before it."""
    return "\x1f".join([said.prompt, *(text for turn in said.history for text in turn)])


def _said(record: dict[str, Any], column: str | None, max_chars: int) -> Conversation | Problem:
    if column is not None:
        return conversation(record[column], max_chars=max_chars)
    if problem := text_problem(record["text"], max_chars=max_chars):
        return Problem(*problem)
    return Conversation(record["text"], ())


def _reference(
    record: dict[str, Any], args: Prompts, taxonomies: Collection[Taxonomy]
) -> tuple[list[str] | None, Problem | None]:
    """Return the record's reference label ids, or why they cannot be read."""
    if not args.references:
        return None, None
    labels = []
    for dimension, column in args.references.items():
        taxonomy = next(taxonomy for taxonomy in taxonomies if taxonomy.dimension == dimension)
        for name in label_names(record[column]):
            if name.strip().casefold() in NO_LABEL:
                continue
            try:
                labels.append(taxonomy.label(name.strip()).id)
            except ConfigError as error:
                return None, Problem("unknown_label", f"column {column!r}: {error}")
    return labels, None


def label_names(value: object) -> list[str]:
    """Return the names in a value of labels: names parted by `;`, a list, each also written as JSON.

    An item of a list is a name or, as in a released table, an object with the name as `label`.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", '"')):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        return [] if value is None else str(value).split(";")
    names = [item.get("label") if isinstance(item, dict) else item for item in value]
    return [str(name) for name in names if name is not None]

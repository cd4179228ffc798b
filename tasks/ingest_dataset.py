"""Read responses whose alignment is known: from a file, or as the rows of a published data set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from normloom.errors import ConfigError, SourceError
from normloom.models.protocol import Turn
from normloom.readers import Reading, as_text, locate, read_source
from normloom.schemas import benchmark_tables, tables
from normloom.schemas.taxonomy import Taxonomy
from normloom.stage import DROPPED_SCHEMA, Output, Stage, quarantined, quarantined_frame
from normloom.tasks import bounds
from normloom.tasks.dialogue import history
from normloom.tasks.ingest import NO_LABEL, Ingestion, known_by, label_names, named_columns
from normloom.tasks.messages import Conversation, conversation
from normloom.tasks.resample import ALIGNMENTS
from normloom.tasks.source_columns import SourceColumns, source_columns
from normloom.text import text_problem

Problem = tuple[str, str]  # rule and reason
MESSAGES = "messages"  # the column of conversations of a released table, which is used if it is there


class DatasetIngestion(Ingestion):
    """Which columns of a file hold prompts, responses, their alignment and what is known besides.

    `columns` maps `response`, `alignment`, `split` and `generator` to columns. The latter two and those of
    `references` may be missing where they are named as what they hold; another name must be there.
    """

    columns: Mapping[str, str]
    split: str | None = "test"


class ItemChoice(BaseModel):
    """Which rows are evaluated: the first `limit` of a split. A data set without splits is taken whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: tuple[str, ...]
    source: str
    split: str | None = "test"
    limit: int | None = Field(None, ge=1)


def read_dataset(arguments: DatasetIngestion) -> Output:
    """Read the file; a record that cannot be used goes to quarantine with rule and reason.

    Raises SourceError for a file none of whose records can be used, or that has none of the split.
    """
    named = {**arguments.columns, **arguments.references}
    needed = [column for role, column in named.items() if role in {"response", "alignment"} or role != column]
    keep = (*needed, *named_columns(arguments.keep))
    source = read_source(
        arguments.source, text_column=arguments.text_column, keep=keep, optional=(*named.values(), MESSAGES)
    )
    found = {role: column for role, column in named.items() if column in source.rows.columns}
    texts = {column for role, column in found.items() if role in arguments.columns}
    rows = source.rows.with_columns(as_text(source.rows[column]) for column in sorted(texts))
    aside: list[dict[str, str | None]] = [
        {"row_id": None, "rule": rule, "reason": f"record {number}: {reason}", "payload": payload}
        for number, rule, reason, payload in source.rejected
    ]
    usable = []
    for record in rows.iter_rows(named=True):
        held = {role: record[column] for role, column in found.items()}
        row, problem = _row({**held, **_said(record, arguments)}, record["text"], arguments)
        if problem:
            rule, reason = problem
            aside.append(quarantined({"row_id": None, **record}, rule, f"record {record['source_row']}: {reason}"))
        else:
            usable.append(row)
    if not usable:
        rules = ", ".join(f"{rule} {count}" for rule, count in Counter(entry["rule"] for entry in aside).items())
        raise SourceError(
            f"{arguments.source.name}: none of {len(aside)} records can be used ({rules}; {aside[0]['reason']}): "
            f"expected a prompt in column {arguments.text_column!r}, a response in {arguments.columns['response']!r} "
            f"and aligned or misaligned in {arguments.columns['alignment']!r}"
        )
    _require_split((row["split"] for row in usable), arguments.split, arguments.source.name)
    dimensions = tuple(taxonomy.dimension for taxonomy in arguments.taxonomies)
    schema = tables.named_by_content(benchmark_tables.dataset(dimensions))
    return Output(
        rows=pl.DataFrame(usable, schema=schema),
        quarantined=quarantined_frame(aside),
        attempts=len(usable) + len(aside),
    )


def _said(record: Mapping[str, Any], arguments: DatasetIngestion) -> dict[str, Any]:
    """Return what identifies a record, and what its column `messages` has before the prompt."""
    said = conversation(record.get(MESSAGES), max_chars=arguments.max_chars)
    history = said.history if isinstance(said, Conversation) and said.prompt == record["text"] else ()
    return {"source_row": record["source_row"], "history": history}


def _row(
    record: Mapping[str, Any], prompt: str | None, arguments: DatasetIngestion
) -> tuple[dict[str, Any], Problem | None]:
    """Return a record under the published columns, or why it cannot be used."""
    for name, text in (("prompt", prompt), ("response", record["response"])):
        if problem := text_problem(text, max_chars=arguments.max_chars):
            return {}, (problem[0], f"{name}: {problem[1]}")
    alignment = (record["alignment"] or "").strip().casefold()
    if alignment not in ALIGNMENTS:
        column = arguments.columns["alignment"]
        return {}, ("unknown_alignment", f"column {column!r}: expected aligned or misaligned, found {alignment!r}")
    labels: dict[str, list[dict[str, object]]] = {}
    for taxonomy in arguments.taxonomies:
        try:
            labels[taxonomy.dimension] = _labels(record.get(taxonomy.dimension), taxonomy)
        except ConfigError as error:
            return {}, ("unknown_label", f"column {arguments.references[taxonomy.dimension]!r}: {error}")
    identity = known_by(Conversation(str(prompt), record["history"]))
    said = [*record["history"], Turn("user", str(prompt)), Turn("assistant", record["response"])]
    return {
        "parents": [],
        "content": "\x1f".join((identity, str(record["response"]), alignment)),
        "prompt_id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        "prompt": prompt,
        "response": record["response"],
        "messages": [turn._asdict() for turn in said],
        "alignment": alignment,
        "generator": record.get("generator") or "unknown",
        **labels,
        "split": (record.get("split") or "").strip() or None,
        "origin": "source",
        "source_row": record["source_row"],
    }, None


def _labels(value: object, taxonomy: Taxonomy) -> list[dict[str, object]]:
    names = (name.strip() for name in label_names(value))
    wanted = [name for name in names if name.casefold() not in NO_LABEL]
    return [{"label": taxonomy.label(name).id, "probability": None} for name in wanted]


def choose_items(rows: pl.DataFrame, arguments: ItemChoice) -> Output:
    """Return the rows that are evaluated; the others are dropped as of another split or beyond the limit.

    Raises SourceError where the split has no row.
    """
    _require_split(rows["split"], arguments.split, f"the data set {arguments.source}")
    split = pl.col("split")
    whole = arguments.split is None or rows["split"].null_count() == rows.height
    inside = pl.lit(value=True) if whole else split.eq_missing(arguments.split)
    marked = rows.with_columns(inside=inside).with_columns(place=pl.col("inside").cum_sum())
    taken = pl.col("inside") & (pl.col("place") <= (arguments.limit or rows.height))
    out = marked.filter(~taken).select(
        "row_id",
        reason=pl.when("inside").then(pl.lit("limit")).otherwise(pl.format("split {}", split.fill_null("unknown"))),
        winner=pl.lit(None, dtype=pl.String),
        payload=pl.lit(None, dtype=pl.String),  # the row stands in the table it came from
    )
    labelled = [
        pl.when(pl.col(name).list.len() > 0).then(pl.lit(name)).otherwise(None) for name in arguments.dimensions
    ]
    ids = [pl.col(name).list.eval(pl.element().struct.field("label")) for name in arguments.dimensions]
    items = marked.filter(taken).with_columns(
        dimensions=pl.concat_list(labelled).list.drop_nulls(),
        labels=pl.concat_list(ids),
        history=history() if "messages" in rows.columns else pl.lit(None, dtype=tables.MESSAGES),
        semantic_type=pl.col("semantic_type") if "semantic_type" in rows.columns else pl.lit(None, dtype=pl.String),
    )
    return Output(
        rows=items.select("row_id", *benchmark_tables.ITEMS.columns),
        dropped=out.select(pl.col(name).cast(kind) for name, kind in DROPPED_SCHEMA.items()),
    )


def _require_split(splits: Iterable[str | None], wanted: str | None, where: str) -> None:
    """Raise SourceError where rows have splits and none is the wanted one."""
    counts = Counter(split for split in splits if split is not None)
    if wanted is not None and counts and wanted not in counts:
        there = ", ".join(f"{split} ({count:,} rows)" for split, count in sorted(counts.items()))
        raise SourceError(
            f"{where} has no row of the split {wanted!r}; it has {there}: set source.split to one of them"
        )


def ingest_dataset(arguments: DatasetIngestion, *, name: str = "ingest") -> Stage:
    """Return the stage that reads responses of known alignment from a file."""
    dimensions = tuple(taxonomy.dimension for taxonomy in arguments.taxonomies)
    return Stage(name=name, function=read_dataset, arguments=arguments, contract=benchmark_tables.dataset(dimensions))


def dataset_ingestion(path: Path | str, reading: Reading | None = None, **settings: object) -> DatasetIngestion:
    """Return the arguments for a source, with the digest of its content."""
    return DatasetIngestion(source=locate(path, reading), **settings)


def dataset_columns(dataset: Stage, ingestion: DatasetIngestion) -> Stage | None:
    """Return the stage that keeps columns of a source of responses, None if none are kept."""
    if not ingestion.keep:
        return None
    used = (ingestion.text_column, MESSAGES, *ingestion.columns.values(), *ingestion.references.values())
    reserved = tuple(benchmark_tables.DETECTOR_RESULTS.columns)
    arguments = SourceColumns(source=ingestion.source, keep=ingestion.keep, used=used, reserved=reserved)
    return source_columns(dataset, arguments=arguments)


def items(dataset: Stage, *, arguments: ItemChoice, name: str = "items") -> Stage:
    """Return the stage that chooses the rows which are evaluated."""
    return Stage(
        name=name,
        function=choose_items,
        bound=bounds.first_rows,
        arguments=arguments,
        contract=benchmark_tables.ITEMS,
        inputs=(dataset,),
    )

"""Read responses whose alignment is known: from a file, or as the rows of a published data set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import polars as pl
from pydantic import Field

from normloom.core.errors import ConfigError, SourceError
from normloom.core.fan_out import each
from normloom.core.models.protocol import Turn
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, Stage, quarantined_frame
from normloom.core.table import DROPPED_SCHEMA
from normloom.readers import LIBRARIES, Located, read_source
from normloom.readers.records import none_usable
from normloom.schemas import benchmark_tables, tables
from normloom.schemas.taxonomy import DIMENSIONS, Taxonomy
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.prompts.dialogue import history
from normloom.tasks.prompts.ingest import NO_LABEL, known_by, label_names, named_columns
from normloom.tasks.prompts.messages import Conversation, conversation
from normloom.tasks.records import fault
from normloom.tasks.rejection.resample import ALIGNMENTS
from normloom.tasks.release.source_columns import source_columns

Problem = tuple[str, str]  # rule and reason
MESSAGES = "messages"  # the column of conversations of a released table, which is used if it is there


class Responses(Args):
    """Which columns of a file hold prompts, responses, their alignment and what is known besides.

    The columns of splits and generators, and those of `references`, may be missing if they are named as what they
    hold; another name must be there.
    """

    text_column: str = Field("prompt", description="column of the prompts")
    response_column: str = Field("response", description="column of responses")
    alignment_column: str = Field("alignment", description="column that says aligned or misaligned")
    split_column: str = Field("split", description="column of splits")
    generator_column: str = Field("generator", description="column of the response's author")
    references: dict[str, str] = Field(
        default_factory=dict, description="dimension -> column of labels, if not its own"
    )
    keep: Literal["all"] | tuple[str, ...] = Field("all", description="columns to keep in the release")
    split: str | None = Field("test", description="none: all splits")
    max_chars: int = Field(20_000, ge=1, description="longer texts are quarantined")

    @property
    def columns(self) -> dict[str, str]:
        """The column of each role."""
        return {
            "response": self.response_column,
            "alignment": self.alignment_column,
            "split": self.split_column,
            "generator": self.generator_column,
        }

    def labels(self, dimension: str) -> str:
        """Return the column of a dimension's labels."""
        return self.references.get(dimension, dimension)


@step(
    makes=lambda given: benchmark_tables.dataset(tuple(taxonomy.dimension for taxonomy in given["taxonomies"])),
    name="ingest",
    libraries=LIBRARIES,
)
def ingest_dataset(args: Responses, *, source: Located, taxonomies: tuple[Taxonomy, ...]) -> Output:
    """Read the file; a record that cannot be used goes to quarantine with rule and reason.

    Raises SourceError for a file none of whose records can be used, or that has none of the split.
    """
    columns = args.columns
    named = {**columns, **{taxonomy.dimension: args.labels(taxonomy.dimension) for taxonomy in taxonomies}}
    needed = [column for role, column in named.items() if role in {"response", "alignment"} or role != column]
    keep = (*needed, *named_columns(args.keep))
    read = read_source(source, text_column=args.text_column, keep=keep, optional=(*named.values(), MESSAGES))
    found = {role: column for role, column in named.items() if column in read.rows.columns}
    texts = {column for role, column in found.items() if role in columns}
    rows = read.rows.with_columns(read.text(column) for column in sorted(texts))
    aside = read.entries
    usable = []
    for record in rows.iter_rows(named=True):
        held = {role: record[column] for role, column in found.items()}
        row, problem = _row({**held, **_said(record, args.max_chars)}, record["text"], args, taxonomies)
        if problem:
            aside.append(fault(record, *problem))
        else:
            usable.append(row)
    if not usable:
        what = (
            f"a prompt in column {args.text_column!r}, a response in {args.response_column!r} "
            f"and aligned or misaligned in {args.alignment_column!r}"
        )
        raise none_usable(source.name, aside, expected=what)
    _require_split((row["split"] for row in usable), args.split, source.name)
    dimensions = tuple(taxonomy.dimension for taxonomy in taxonomies)
    schema = tables.named_by_content(benchmark_tables.dataset(dimensions))
    return Output(
        rows=pl.DataFrame(usable, schema=schema),
        quarantined=quarantined_frame(aside),
        attempts=len(usable) + len(aside),
    )


def _said(record: Mapping[str, Any], max_chars: int) -> dict[str, Any]:
    """Return what identifies a record, and what its column `messages` has before the prompt."""
    said = conversation(record.get(MESSAGES), max_chars=max_chars)
    history = said.history if isinstance(said, Conversation) and said.prompt == record["text"] else ()
    return {"source_row": record["source_row"], "history": history}


def _row(
    record: Mapping[str, Any], prompt: str | None, args: Responses, taxonomies: Iterable[Taxonomy]
) -> tuple[dict[str, Any], Problem | None]:
    """Return a record under the published columns, or why it cannot be used."""
    for name, text in (("prompt", prompt), ("response", record["response"])):
        if problem := text_problem(text, max_chars=args.max_chars):
            return {}, (problem[0], f"{name}: {problem[1]}")
    alignment = (record["alignment"] or "").strip().casefold()
    if alignment not in ALIGNMENTS:
        return {}, (
            "unknown_alignment",
            f"column {args.alignment_column!r}: expected aligned or misaligned, found {alignment!r}",
        )
    labels: dict[str, list[dict[str, object]]] = {}
    for taxonomy in taxonomies:
        try:
            labels[taxonomy.dimension] = _labels(record.get(taxonomy.dimension), taxonomy)
        except ConfigError as error:
            return {}, ("unknown_label", f"column {args.labels(taxonomy.dimension)!r}: {error}")
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


@step(makes=benchmark_tables.ITEMS, bound=bounds.first_rows, fan_out=each())
def items(
    rows: pl.DataFrame,
    *,
    source: str,
    split: str | None = "test",
    limit: int | None = None,
    dimensions: tuple[str, ...] = DIMENSIONS,
) -> Output:
    """Return the first `limit` rows of a split; the others are dropped as of another split or beyond the limit.

    A data set without splits, named `source` in messages, is taken whole.

    Raises SourceError if the split has no row.
    """
    _require_split(rows["split"], split, f"the data set {source}")
    of = pl.col("split")
    whole = split is None or rows["split"].null_count() == rows.height
    inside = pl.lit(value=True) if whole else of.eq_missing(split)
    marked = rows.with_columns(inside=inside).with_columns(position=pl.col("inside").cum_sum())
    taken = pl.col("inside") & (pl.col("position") <= (limit or rows.height))
    out = marked.filter(~taken).select(
        "row_id",
        reason=pl.when("inside").then(pl.lit("limit")).otherwise(pl.format("split {}", of.fill_null("unknown"))),
        winner=pl.lit(None, dtype=pl.String),
        payload=pl.lit(None, dtype=pl.String),  # the row stands in the table it came from
    )
    labelled = [pl.when(pl.col(name).list.len() > 0).then(pl.lit(name)).otherwise(None) for name in dimensions]
    ids = [pl.col(name).list.eval(pl.element().struct.field("label")) for name in dimensions]
    evaluated = marked.filter(taken).with_columns(
        dimensions=pl.concat_list(labelled).list.drop_nulls(),
        labels=pl.concat_list(ids),
        history=history() if "messages" in rows.columns else pl.lit(None, dtype=tables.MESSAGES),
        semantic_type=pl.col("semantic_type") if "semantic_type" in rows.columns else pl.lit(None, dtype=pl.String),
    )
    return Output(
        rows=evaluated.select("row_id", *benchmark_tables.ITEMS.columns),
        dropped=out.select(pl.col(name).cast(kind) for name, kind in DROPPED_SCHEMA.items()),
    )


def _require_split(splits: Iterable[str | None], wanted: str | None, where: str) -> None:
    """Raise SourceError if rows have splits and none is the wanted one."""
    counts = Counter(split for split in splits if split is not None)
    if wanted is not None and counts and wanted not in counts:
        there = ", ".join(f"{split} ({count:,} rows)" for split, count in sorted(counts.items()))
        raise SourceError(
            f"{where} has no row of the split {wanted!r}; it has {there}: set source.split to one of them"
        )


def dataset_columns(dataset: Stage, source: Located, args: Responses) -> Stage | None:
    """Return the stage that keeps columns of a source of responses, None if none are kept."""
    if not args.keep:
        return None
    labels = (args.labels(dimension) for dimension in DIMENSIONS)
    used = (args.text_column, MESSAGES, *args.columns.values(), *labels)
    reserved = tuple(benchmark_tables.DETECTOR_RESULTS.columns)
    return source_columns(dataset, source=source, keep=args.keep, used=used, reserved=reserved)

"""Decontamination: the items of benchmarks that a release has, and the release without them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each, free
from normloom.core.stage import Output, dropped_rows, quarantined_frame
from normloom.near_duplicates.features import Features
from normloom.readers import LIBRARIES, Located, column_names, read_source
from normloom.schemas import tables
from normloom.schemas.contamination_tables import CONTAMINATION, ITEMS, JACCARD, NGRAMS
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks import bounds
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.tasks.records import fault

_NO_TEXT = frozenset({"id", "ids", "index", "number", "type", "category", "length", "tokens", "hash"})  # prompt_id
TEXT_COLUMNS = ("prompt", "question", "query", "goal", "behavior", "instruction", "problem", "input", "text")
ROWS, ITEMS_FOUND = "contaminated_rows", "benchmark_items_found"


class Matching(Args):
    """When a text has an item of a benchmark: at least `overlap` of the item's words lie in runs of `ngram` words that
    the text has too, or the Jaccard similarity of their shingles is at least `jaccard`.

    Words are compared without case and punctuation. The defaults are those of Tulu 3 (arXiv 2411.15124); GPT-3's
    (arXiv 2005.14165) are 13 and 0, any run in common.
    """

    ngram: int = Field(8, ge=2, description="words in a run that row and benchmark item have in common")
    overlap: float = Field(0.5, ge=0, le=1, description="share of an item's words in common runs; 0: any run")
    least_words: int = Field(5, ge=2, description="shorter benchmark items are compared as near-duplicates only")
    jaccard: float = Field(0.8, ge=0.5, le=1, description="shingle Jaccard from which a text repeats an item")
    features: Features = Features()


@step(makes=ITEMS, fan_out=free("a source"), libraries=LIBRARIES)
def benchmark_items(*, source: Located, benchmark: str, text_column: str | None = None) -> Output:
    """Return the items of a benchmark; records without text are quarantined.

    Without `text_column` it is the first of `TEXT_COLUMNS` that is there, else the only column that has one of their
    names in its own (`forbidden_prompt`). Raises SourceError if there is none, or several, or no record has a text.
    """
    read = read_source(source, text_column=text_column or _text_column(source))
    texts = read.rows.with_columns(read.text("text"))
    blank = (pl.col("text").str.strip_chars() == "").fill_null(value=True)
    empty = [
        fault(row, "empty", "no text") for row in texts.filter(blank).select("source_row", "text").iter_rows(named=True)
    ]
    items = texts.filter(~blank).select("source_row", "text", benchmark=pl.lit(benchmark))
    if items.is_empty():
        raise SourceError(f"{source.name}: none of {read.records} records has a text: it is not a benchmark")
    known = items.with_columns(
        parents=pl.lit([], dtype=tables.TEXTS), content=pl.format("{} {}", "source_row", pl.col("text"))
    )
    return Output(rows=known, quarantined=quarantined_frame([*read.entries, *empty]), attempts=read.records)


def _text_column(source: Located) -> str:
    columns = column_names(source)
    by_name = {name.casefold(): name for name in reversed(columns)}
    if known := [by_name[name] for name in TEXT_COLUMNS if name in by_name]:
        return known[0]
    words = {name: set(re.split(r"[^a-z]+", name.casefold())) for name in columns}
    alike = [name for name, parts in words.items() if parts & {*TEXT_COLUMNS} and not parts & _NO_TEXT]
    if len(alike) == 1:
        return alike[0]
    raise SourceError(
        f"{source.name}: which of its columns ({', '.join(columns)}) has the texts of the benchmark? Name it: "
        f"{{path: {source.name}, text_column: COLUMN}}"
    )


@step(
    makes=CONTAMINATION,
    name="contamination",
    part_rows=20_000,
    bound=bounds.as_many,
    fan_out=free("one row for each text and benchmark item that it has"),
    libraries=("numba", "numpy"),
)
def find_contamination(
    rows: pl.DataFrame, args: Matching, *benchmarks: pl.DataFrame, columns: tuple[str, ...]
) -> Output:
    """Return which texts of the rows have which items of the benchmarks.

    A text in `columns` is a string, or a list of messages, whose contents are compared. An item found by its words
    is not named again as a near-duplicate.
    """
    items = pl.concat(benchmarks).select("row_id", "benchmark", "source_row", "text")
    found = [
        {
            "parents": [row, items["row_id"][item]],
            "content": column,
            "of": row,
            "column": column,
            "benchmark": items["benchmark"][item],
            "item": items["source_row"][item],
            "item_id": items["row_id"][item],
            "measure": measure,
            "value": value,
            "matched": matched,
            "item_text": items["text"][item],
        }
        for column in columns
        for row, item, measure, value, matched in _matches(rows, column, items["text"].to_list(), args)
    ]
    made = pl.DataFrame(found, schema=tables.named_by_content(CONTAMINATION))
    return Output(rows=made, attempts=made.height)


def _matches(
    rows: pl.DataFrame, column: str, items: Sequence[str], args: Matching
) -> Iterator[tuple[str, int, str, float, str]]:
    """Yield row id, item, measure, value and matched text of what one column has, row by row."""
    from normloom.near_duplicates.find import similar_to_known
    from normloom.near_duplicates.overlap import find_overlaps

    texts, ids = texts_of(rows[column]), rows["row_id"].to_list()
    found: dict[tuple[int, int], tuple[str, float, str]] = {}
    text, item, similarity = similar_to_known(texts, items, features=args.features, jaccard=args.jaccard)
    for at, of, value in zip(text.tolist(), item.tolist(), similarity.tolist(), strict=True):
        found[at, of] = (JACCARD, value, texts[at])
    for one in find_overlaps(texts, items, size=args.ngram, least_words=args.least_words, share=args.overlap):
        found[one.text, one.item] = (NGRAMS, one.share, texts[one.text][one.start : one.stop])
    yield from ((ids[at], of, *told) for (at, of), told in sorted(found.items()))


def texts_of(column: pl.Series) -> list[str]:
    """Return the texts of a column: strings, or messages one after another; an empty one if there is none."""
    if isinstance(column.dtype, pl.List):
        said = column.list.eval(pl.element().struct.field("content")).list.join("\n")
        return said.fill_null("").to_list()
    return column.fill_null("").to_list()


@step(bound=bounds.as_many, fan_out=each())
def decontaminate(rows: pl.DataFrame, found: pl.DataFrame, *, together: tuple[str, ...] = ()) -> Output:
    """Return the rows that have no benchmark item.

    A removed row names the item that it has most of as its winner; its payload says what was found, as
    `contaminated_benchmark`, `contaminated_item`, `contaminated_matched` and so on. Reasons: `contaminated`, and
    `other_contaminated` for a row that has the values of such a row in the columns `together`: of a pair both go.
    """
    told = ("benchmark", "item", "measure", "value", "matched", "column", "item_id")
    worst = found.sort("value", "column", "item_id", descending=[True, False, False]).unique(
        "of", keep="first", maintain_order=True
    )
    marked = rows.join(
        worst.select(row_id="of", **{f"_{name}": name for name in told}),
        on="row_id",
        how="left",
        maintain_order="left",
    )
    own = pl.col("_item_id").is_not_null()
    gone = own.any().over(*together) if together else own
    named = {f"_{name}": f"contaminated_{name}" for name in told[:-1]}
    lost = marked.filter(gone).rename(named)
    kept = marked.filter(~gone).select(rows.columns)
    return Output(
        rows=kept.drop("parents", strict=False),
        dropped=dropped_rows(
            lost,
            reason=pl.when(own).then(pl.lit("contaminated")).otherwise(pl.lit("other_contaminated")),
            winner=pl.col("_item_id"),
            leaving_out=("_item_id",),
        ),
        metrics={"contaminated": float(lost.filter(own).height)},
    )


@step(makes=tables.FIGURES, fan_out=free("one row for each figure"))
def contamination_figures(
    rows: pl.DataFrame, found: pl.DataFrame, *benchmarks: pl.DataFrame, columns: tuple[str, ...]
) -> Output:
    """Return for each benchmark how many rows have an item of it, by column too, and how many of its items are had."""
    made: list[dict[str, Any]] = []
    for items in benchmarks:
        own = found.filter(benchmark=items["benchmark"][0])
        parts = {"": own} | ({column: own.filter(column=column) for column in columns} if len(columns) > 1 else {})
        counts = [(ROWS, column, part["of"].n_unique(), rows.height) for column, part in parts.items()]
        counts.append((ITEMS_FOUND, "", own["item_id"].n_unique(), items.height))
        made += [
            figure_row(Figure(value=count, rows=among), metric=metric, of=items["benchmark"][0], axis=column)
            for metric, column, count, among in counts
        ]
    return figures_output(made)

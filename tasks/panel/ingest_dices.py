"""Read safety ratings in the layout of DICES (Aroyo et al. 2023, arXiv 2306.11247): one row a conversation and rater.

The ratings are a CSV file as its authors publish it (350 or 990), or a CSV or Parquet file of ratings with one of
conversations. Columns are found by name; who the raters are may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.rows.text import text_problem
from normloom.core.stage import Output, quarantined_frame
from normloom.readers import LIBRARIES, Located, Source, read_source
from normloom.readers.records import none_usable
from normloom.schemas import tables
from normloom.schemas.people import demo_tables
from normloom.schemas.people.demo_tables import ANSWERS, AXES, UNKNOWN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault

ANSWER = "Q_overall"
_ITEM = ("safety_gold", "degree_of_harm", "harm_type")
_RATER = ("rater_id", *AXES, "rater_education")
_TEXT = ("context", "response")


class Conversations(Args):
    """How many conversations are taken, and which."""

    limit: int | None = Field(None, ge=1, description="conversations, each with all its raters")
    max_chars: int = Field(20_000, ge=1, description="longer conversations are quarantined")


@step(makes=demo_tables.RATINGS, name="ingest", libraries=LIBRARIES)
def ingest_dices(args: Conversations, *, source: Located, items: Located | None = None) -> Output:
    """Return one row for each rating; a record that cannot be used goes to quarantine with rule and reason.

    Rules: `missing_item`, `unknown_item`, `unknown_answer`, `unknown_gold`, `other_text` (an item's text is that of
    its first row), `repeated_rating` (of one rater), and those of `normloom.core.rows.text` for context and response.
    Raises SourceError for a file that lacks needed columns, a file of conversations that holds one twice, and a file
    none of whose records can be used.
    """
    read = _read(source, (ANSWER, "item_id"), (*_RATER, *(() if items else (*_TEXT, *_ITEM))))
    records = read.rows.rename({"text": "answer"}).with_columns(
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in ("answer", "item_id")
    )
    if args.limit:
        first = records["item_id"].drop_nulls().unique(maintain_order=True).head(args.limit)
        records = records.filter(pl.col("item_id").is_in(first.implode()) | pl.col("item_id").is_null())
    if items:
        records = records.join(_items(items), on="item_id", how="left", maintain_order="left")
    elif absent := [name for name in _TEXT if name not in records.columns]:
        raise SourceError(
            f"{source.name} has no column {' and no column '.join(map(repr, absent))}: "
            "expected the conversations here, or in a file of their own named by source.items"
        )
    judged = _judged(_complete(records), args, known=items is not None)
    usable = judged.filter(pl.col("rule").is_null())
    aside = [
        fault(row, row.pop("rule"), row.pop("reason"))
        for row in judged.filter(pl.col("rule").is_not_null()).iter_rows(named=True)
    ] + read.entries
    if usable.is_empty():
        raise none_usable(source.name, aside)
    known_by = pl.concat_str("item_id", "rater_id", "group", "answer", *_TEXT, separator="\x1f", ignore_nulls=True)
    return Output(
        rows=usable.select(*demo_tables.RATINGS.columns, parents=pl.lit([], dtype=tables.TEXTS), content=known_by),
        quarantined=quarantined_frame(aside),
        attempts=judged.height + len(read.rejected),
        metrics={
            "conversations": usable["item_id"].n_unique(),
            "human_answers": usable["answer"].count(),
            "unknown_raters": usable.filter(group=UNKNOWN).height,
        },
    )


def _read(source: Located, needed: Sequence[str], optional: Sequence[str]) -> Source:
    """Read the needed columns and those of the optional ones that are there, as text; the first one is the text."""
    read = read_source(source, text_column=needed[0], keep=needed[1:], optional=optional)
    return replace(read, rows=read.rows.with_columns(read.text(name) for name in read.rows.columns[2:]))


def _items(source: Located) -> pl.DataFrame:
    items = _read(source, ("context", "item_id", "response"), _ITEM).rows.rename({"text": "context"}).drop("source_row")
    if twice := items.filter(pl.col("item_id").is_duplicated())["item_id"].to_list():
        raise SourceError(f"{source.name}: item_id {twice[0]!r} occurs more than once: remove all but one")
    return items.with_columns(known=True)


def _complete(records: pl.DataFrame) -> pl.DataFrame:
    """Return the records with every column of a rating, nulls for blanks, and the group of the rater."""
    absent = [name for name in (*_RATER, *_ITEM) if name not in records.columns]
    completed = records.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in absent).with_columns(
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in (*_RATER, *_ITEM)
    )
    unknown = pl.all_horizontal(pl.col(name).is_null() for name in AXES)
    cell = pl.concat_str([pl.col(name).fill_null(UNKNOWN) for name in AXES], separator=" / ")
    return completed.with_columns(group=pl.when(unknown).then(pl.lit(UNKNOWN)).otherwise(cell))


def _judged(records: pl.DataFrame, args: Conversations, *, known: bool) -> pl.DataFrame:
    """Return the records with `rule` and `reason`, null for those that can be used."""
    items = pl.col("item_id")
    text = pl.concat_str(*_TEXT, separator="\x1f")
    repeated = pl.col("rater_id").is_not_null() & ~pl.struct("item_id", "rater_id").is_first_distinct()
    faults = {
        "missing_item": (items.is_null(), pl.lit("no item_id")),
        "unknown_item": (
            ~pl.col("known").fill_null(value=False) if known else pl.lit(value=False),
            pl.format("item_id '{}' is not in the file of conversations", items),
        ),
        "unknown_answer": _not_within("answer", ANSWERS, ANSWER),
        "unknown_gold": _not_within("safety_gold", ("No", "Yes")),
        "other_text": (text != text.first().over("item_id"), pl.lit("the item's first row has another text")),
        "repeated_rating": (repeated, pl.format("rater '{}' has rated the item before", "rater_id")),
    }
    found = [pl.when(fault).then(pl.struct(rule=pl.lit(rule), reason=why)) for rule, (fault, why) in faults.items()]
    problems = _text_problems(records.select(*_TEXT).unique(maintain_order=True), args.max_chars)
    joined = records.join(problems, on=_TEXT, how="left", nulls_equal=True, maintain_order="left")
    first = pl.coalesce(*found[:2], "problem", *found[2:])
    return joined.with_columns(rule=first.struct.field("rule"), reason=first.struct.field("reason")).drop(
        "problem", "known", strict=False
    )


def _not_within(column: str, allowed: Sequence[str], name: str | None = None) -> tuple[pl.Expr, pl.Expr]:
    value = pl.col(column)
    fault = value.is_not_null() & ~value.is_in(list(allowed))
    return fault, pl.format("{} is '{}', expected {}", pl.lit(name or column), value, pl.lit(", ".join(allowed)))


def _text_problems(texts: pl.DataFrame, max_chars: int) -> pl.DataFrame:
    """Return each text with its `problem`, a struct of rule and reason, null if there is none."""
    problems = []
    for row in texts.iter_rows(named=True):
        faults = ((name, text_problem(row[name], max_chars=max_chars)) for name in _TEXT)
        problem = next(((name, *fault) for name, fault in faults if fault), None)
        problems.append({"rule": problem[1], "reason": f"{problem[0]}: {problem[2]}"} if problem else None)
    dtype = pl.Struct({"rule": pl.String, "reason": pl.String})
    return texts.with_columns(problem=pl.Series(problems, dtype=dtype))

"""Sentences of documents, each kept once: `normloom build examples/sentences.py --set distinct.min_words=4`."""

import polars as pl
from pydantic import Field

import normloom as nl
from normloom.settings.config import section
from normloom.settings.system_config import SystemConfig

DOCUMENTS = [
    {"document": "Bring a valid passport. The office opens at nine. Bring a valid passport."},
    {"document": "No entry. The office opens at nine."},
]


class Distinct(nl.Args):
    min_words: int = Field(3, ge=1, description="words that a sentence needs")


class Sentences(SystemConfig):
    distinct: Distinct = section(Distinct)


@nl.step(makes={"sentence": pl.String}, fan_out=nl.free("a document has any number of sentences"))
def cut(rows: pl.DataFrame) -> nl.Output:
    parts = rows.select(pl.concat_list("row_id").alias("parents"), sentence=pl.col("document").str.split("."))
    made = parts.explode("sentence").with_columns(pl.col("sentence").str.strip_chars()).filter(pl.col("sentence") != "")
    made = made.with_columns(content=pl.concat_str(pl.int_range(pl.len()).over("parents"), "sentence", separator=" "))
    return nl.Output(rows=made, attempts=made.height)


@nl.step(makes={"sentence": pl.String}, fan_out=nl.each())
def distinct(rows: pl.DataFrame, args: Distinct) -> nl.Output:
    """Keep the first of equal sentences; the ledger names it as the winner."""
    long = pl.col("sentence").str.split(" ").list.len() >= args.min_words
    first = pl.col("row_id").first().over("sentence")
    dropped = [
        nl.dropped_rows(rows.filter(~long), reason="too_short"),
        nl.dropped_rows(
            rows.with_columns(first=first).filter(long, pl.col("row_id") != pl.col("first")),
            reason="repeated",
            winner=pl.col("first"),
            leaving_out=("first",),
        ),
    ]
    return nl.Output(rows=rows.filter(long, pl.col("row_id") == first), dropped=pl.concat(dropped))


def flow(config: Sentences) -> nl.Stage:
    return distinct(cut(nl.table(DOCUMENTS, name="documents")), config.distinct)

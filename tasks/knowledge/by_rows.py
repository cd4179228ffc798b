"""Sources that fit in memory: WordNet, a lexicon of abuse, a table of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from normloom.core.errors import SourceError
from normloom.readers import Located, read_source
from normloom.schemas.media.knowledge_tables import FACT_COLUMNS, LEXICON, SYMBOLS, WORDNET
from normloom.tasks.knowledge.streamed import Read
from normloom.tasks.knowledge.wordnet import WordNetFolder, senses

Fact = tuple[str, str, str, float, str, str, str]  # in the order of FACT_COLUMNS


def wordnet(source: WordNetFolder, *, most: int) -> tuple[pl.DataFrame, Read]:
    """Return what each lemma is in its first senses; the weight of sense n is 1 / (1 + n)."""
    facts: list[Fact] = []
    count = 0
    for sense in senses(source, most=most):
        count += 1
        weight, reference = 1 / (1 + sense.number), f"wordnet:{sense.synset}"
        facts.append((sense.lemma, "Gloss", sense.gloss, weight, f"{sense.lemma}: {sense.gloss}", WORDNET, reference))
        if sense.kind_of:
            told = f"{sense.lemma} is a kind of {sense.kind_of}"
            facts.append((sense.lemma, "IsA", sense.kind_of, weight, told, WORDNET, reference))
    return _frame(facts), Read(count)


def lexicon(source: Located) -> tuple[pl.DataFrame, Read]:
    """Return the n-grams of a lexicon of abuse: a table with `ngram` and `prophate`, its share of hate (0 to 1)."""
    rows, read = _table(source, ("ngram", "prophate"))
    facts = []
    for number, ngram, share in rows:
        weight = _share(source, number, share)
        told = f"“{ngram}” is in a lexicon of abusive words, weight {weight:.2f}"
        facts.append((ngram, "Lexicon", share, weight, told, LEXICON, f"row {number}"))
    return _frame(facts), read


def symbols(source: Located) -> tuple[pl.DataFrame, Read]:
    """Return the symbols of a table with `symbol`, `meaning` and `source`; each weighs 1."""
    rows, read = _table(source, ("symbol", "meaning", "source"))
    facts = [
        (symbol, "Symbol", meaning, 1.0, f"{symbol}: {meaning}", SYMBOLS, f"row {number}, {origin}")
        for number, symbol, meaning, origin in rows
    ]
    return _frame(facts), read


def _table(source: Located, columns: tuple[str, ...]) -> tuple[list[tuple[Any, ...]], Read]:
    """Return the rows of a table that have all columns, as (record, texts); the others are counted as rejected."""
    found = read_source(source, text_column=None, keep=columns)
    texts = found.rows.select("source_row", *(found.names(name) for name in columns))
    whole = texts.drop_nulls()
    return whole.rows(), Read(whole.height, found.records - whole.height)


def _share(source: Located, number: int, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SourceError(f"{source.name}: record {number}: prophate is {text!r}, expected a share from 0 to 1")
    return share


def _frame(facts: Sequence[Fact]) -> pl.DataFrame:
    made = pl.DataFrame(facts, schema=FACT_COLUMNS, orient="row")
    return made.with_columns(pl.col("surface").str.to_lowercase())

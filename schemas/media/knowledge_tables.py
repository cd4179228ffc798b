"""What tables of knowledge hold: what was read, where texts mention it, and which facts these mentions bring."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Check, Contract
from normloom.schemas.tables import NOT_EMPTY, within

CONCEPTNET, WIKIDATA, WORDNET, LEXICON, SYMBOLS = "conceptnet", "wikidata", "wordnet", "lexicon", "symbols"
SOURCES = (SYMBOLS, LEXICON, CONCEPTNET, WIKIDATA, WORDNET)

FACT_COLUMNS = {  # of the files of an index
    "surface": pl.String(),  # in lower case: what a text must say
    "relation": pl.String(),
    "tail": pl.String(),
    "weight": pl.Float64(),  # 0 to 1
    "sentence": pl.String(),  # the fact in words
    "source": pl.String(),
    "reference": pl.String(),  # where in the source it is: an assertion, an item, a synset, a row and its own source
}
_WEIGHT = Check(
    expectation="expect_column_values_to_be_between", arguments={"column": "weight", "min_value": 0, "max_value": 1}
)

KNOWLEDGE = Contract(
    columns={
        "source": pl.String(),
        "name": pl.String(),  # of the file, without its folder
        "read": pl.Int64(),  # assertions, entities, senses or rows
        "rejected": pl.Int64(),  # lines that could not be read
        "facts": pl.Int64(),  # in the index
        "surfaces": pl.Int64(),  # different ones
    },
    keys=("source",),
    checks=(NOT_EMPTY, within("source", *SOURCES)),
)

MENTIONS = Contract(
    columns={
        "mention_id": pl.String(),
        "meme_id": pl.String(),
        "surface": pl.String(),  # text[start:end]
        "start": pl.Int64(),  # in characters
        "end": pl.Int64(),
        "term": pl.String(),  # the surface in the index
        "source": pl.String(),
    },
    keys=("mention_id",),
    checks=(within("source", *SOURCES),),
)

FACTS = Contract(
    columns={
        "fact_id": pl.String(),
        "mention_id": pl.String(),
        "meme_id": pl.String(),
        **{name: FACT_COLUMNS[name] for name in ("relation", "tail", "weight", "sentence", "source", "reference")},
    },
    keys=("fact_id",),
    checks=(within("source", *SOURCES), _WEIGHT),
)

"""Where texts mention what the index knows: spans of words, the longest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.models.product_model import ProductFiles
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import knowledge_tables
from normloom.schemas.media.knowledge_tables import SOURCES, SYMBOLS
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.knowledge.index import looked_up

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SPACE = re.compile(r"\s+")
_SUFFIXES = (  # WordNet's rules of detachment (morphy(7WN)), those of nouns first
    ("men", "man"),
    ("ies", "y"),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("es", "e"),
    ("es", ""),
    ("s", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
)


class Mentioning(Args):
    """Which spans of a text may mention something."""

    longest: int = Field(4, ge=1, description="words of a span")
    shortest: int = Field(3, ge=1, description="letters of a single word; symbols may be shorter")
    part_rows: int = Field(1_024, ge=1, exclude=True, description="texts in one part")


class Span(NamedTuple):
    """A piece of a text, text[start:end], and what it may be found as: itself, then its lemmas by suffix.

    A `plain` one is a frequent word, a number or too short: only a symbol can be meant.
    """

    start: int
    end: int
    words: int
    found_as: tuple[str, ...]
    plain: bool


@step(
    makes=knowledge_tables.MENTIONS,
    libraries=("duckdb", "scikit-learn"),
    fan_out=free("one row for each mention and source"),
)
def mentions(rows: pl.DataFrame, args: Mentioning, *, knowledge: ProductFiles) -> Output:
    """Return the mentions of each meme's text: spans that do not overlap, the longest first, of equal ones the first.

    A span that several sources know is one mention for each of them.
    """
    spans = {row["meme_id"]: list(spans_of(row["text"], args)) for row in rows.iter_rows(named=True)}
    asked = {term for some in spans.values() for span in some for term in span.found_as}
    known: dict[str, set[str]] = {}
    for surface, source in looked_up(knowledge.path, sorted(asked)).select("surface", "source").unique().iter_rows():
        known.setdefault(surface, set()).add(source)
    made = []
    for row in rows.iter_rows(named=True):
        meme, text = row["meme_id"], row["text"]
        for number, (span, term, source) in enumerate(_found(spans[meme], known), start=1):
            made.append(
                {
                    "mention_id": f"{meme}:m{number}",
                    "meme_id": meme,
                    "surface": text[span.start : span.end],
                    "start": span.start,
                    "end": span.end,
                    "term": term,
                    "source": source,
                    "parents": [row["row_id"]],
                    "content": f"{span.start}:{span.end}:{source}",
                }
            )
    frame = pl.DataFrame(made, schema=tables.named_by_content(knowledge_tables.MENTIONS))
    return Output(rows=frame, attempts=frame.height)


def spans_of(text: str, args: Mentioning) -> Iterator[Span]:
    """Yield every span of a text of at most `longest` words, in the order of their starts."""
    tokens = list(_TOKEN.finditer(text))
    frequent = _frequent()
    for first, begin in enumerate(tokens):
        for count, last in enumerate(tokens[first : first + args.longest], start=1):
            told = _SPACE.sub(" ", text[begin.start() : last.end()].lower())
            own = told.split(" ")
            plain = all(word in frequent or not word.isalpha() for word in own) or len(told) < args.shortest
            yield Span(begin.start(), last.end(), count, (told, *(() if plain else lemmas(told))), plain)


def lemmas(term: str) -> tuple[str, ...]:
    """Return a term with its last word as it may stand in a dictionary, by suffix: "face masks" -> ("face mask",)."""
    before, space, word = term.rpartition(" ")
    stems = [word[: -len(end)] + put for end, put in _SUFFIXES if word.endswith(end) and not word.endswith("ss")]
    return tuple(dict.fromkeys(f"{before}{space}{stem}" for stem in stems if len(stem) > 2))  # noqa: PLR2004  # letters


def _found(spans: Sequence[Span], known: Mapping[str, set[str]]) -> Iterator[tuple[Span, str, str]]:
    """Yield the mentions in the order of the text."""
    taken: list[tuple[Span, str, list[str]]] = []
    for _, alike in groupby(sorted(spans, key=lambda span: (-span.words, span.start)), key=lambda span: span.words):
        for span in alike:
            if any(span.start < other.end and other.start < span.end for other, _, _ in taken):
                continue
            for term in span.found_as:
                sources = known.get(term, set())
                if meant := [one for one in SOURCES if one in sources and (one == SYMBOLS or not span.plain)]:
                    taken.append((span, term, meant))
                    break
    for span, term, meant in sorted(taken):
        for source in meant:
            yield span, term, source


@lru_cache(maxsize=1)
def _frequent() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)

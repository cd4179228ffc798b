"""Texts with evidence taken away: what a verdict rests on shows in what it becomes without it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
from pydantic import Field

from normloom.core.fan_out import free
from normloom.core.rows.ids import seed
from normloom.core.stage import Output
from normloom.schemas import tables
from normloom.schemas.media import meme_tables
from normloom.schemas.media.meme_tables import CITED, RANDOM, TEST
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.knowledge.facts import enriched


class Unit(NamedTuple):
    """A span of a text with the facts that its mentions brought: what is cited, and taken away, as a whole."""

    start: int
    end: int
    mentions: tuple[str, ...]
    facts: tuple[str, ...]
    sentences: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first mention, by which the unit is known."""
        return self.mentions[0]

    @property
    def short(self) -> str:
        """That mention within its meme: `m1`."""
        return self.name.rpartition(":")[2]


class Deleting(Args):
    """How citations are compared with chance."""

    draws: int = Field(5, ge=1, description="random deletions of each meme, as large as the cited one")


@step(makes=meme_tables.TAKEN_AWAY, name="without", fan_out=free("one row for each piece of evidence of a test meme"))
def without_each(rows: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame) -> Output:
    """Return the enriched text of each test meme without one of its pieces of evidence at a time."""
    units = units_of(mentions, facts)
    made = [
        _row(meme, unit.short, left([unit], units[meme["meme_id"]], meme["text"]))
        for meme in rows.filter(split=TEST).iter_rows(named=True)
        for unit in units.get(meme["meme_id"], [])
    ]
    return _output(made)


@step(makes=meme_tables.TAKEN_AWAY, name="deletions", fan_out=free("the cited evidence, and random draws"))
def delete_evidence(
    rows: pl.DataFrame, args: Deleting, items: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame
) -> Output:
    """Return the enriched text of each explained meme without what is cited, and without as much at random.

    At random: as many words, none of them cited, and as many facts that are not cited, or all of these if they are
    fewer.
    """
    units = units_of(mentions, facts)
    texts = dict(items.select("meme_id", "text").iter_rows())
    made = []
    for explained in rows.iter_rows(named=True):
        meme, own = explained["meme_id"], units[explained["meme_id"]]
        text, named = texts[meme], set(explained["cited_ids"])
        cited = [unit for unit in own if unit.name in named]
        told = {"row_id": explained["row_id"], "meme_id": meme}
        made.append(_row(told, CITED, left(cited, own, text)))
        for draw in range(args.draws):
            chance = random.Random(seed(explained["row_id"], draw))  # noqa: S311  # no secrets
            made.append(_row(told, f"{RANDOM}{draw}", _at_random(text, cited, own, chance)))
    return _output(made)


def units_of(mentions: pl.DataFrame, facts: pl.DataFrame) -> dict[str, list[Unit]]:
    """Return the pieces of evidence of each meme in the order of its text: spans whose mentions brought facts."""
    told = mentions.select("mention_id", "meme_id", "start", "end").join(
        facts.select("mention_id", "fact_id", "sentence", "source"), on="mention_id", maintain_order="left_right"
    )
    spans = told.group_by("meme_id", "start", "end", maintain_order=True).agg(
        pl.col("mention_id").unique(maintain_order=True), "fact_id", "sentence", "source"
    )
    found: dict[str, list[Unit]] = {}
    for meme, start, end, *brought in spans.sort("meme_id", "start").iter_rows():
        found.setdefault(meme, []).append(Unit(start, end, *(tuple(some) for some in brought)))
    return found


def left(gone: Sequence[Unit], units: Sequence[Unit], text: str) -> str:
    """Return an enriched text without some of its evidence: neither the words nor the facts that they brought."""
    kept = [sentence for unit in units if unit not in gone for sentence in unit.sentences]
    return enriched(_cut(text, [(unit.start, unit.end) for unit in gone]), kept)


def _at_random(text: str, cited: Sequence[Unit], units: Sequence[Unit], chance: random.Random) -> str:
    words = [(begin, end) for begin, end in _words(text)]
    inside = [any(begin < unit.end and unit.start < end for unit in cited) for begin, end in words]
    others = [word for word, is_cited in zip(words, inside, strict=True) if not is_cited]
    gone = chance.sample(others, min(sum(inside), len(others)))
    free_facts = [sentence for unit in units if unit not in cited for sentence in unit.sentences]
    count = min(sum(len(unit.facts) for unit in cited), len(free_facts))
    lost = set(chance.sample(range(len(free_facts)), count))
    lost_sentences = {free_facts[place] for place in lost}
    kept = [sentence for unit in units for sentence in unit.sentences if sentence not in lost_sentences]
    return enriched(_cut(text, gone), kept)


def _words(text: str) -> Iterator[tuple[int, int]]:
    begin = None
    for place, letter in enumerate(f"{text} "):
        if letter.isspace():
            if begin is not None:
                yield begin, place
            begin = None
        elif begin is None:
            begin = place


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        text = f"{text[:start]} {text[end:]}"
    return " ".join(text.split())


def _row(meme: dict[str, Any], unit: str, text: str) -> dict[str, Any]:
    return {
        "parents": [meme["row_id"]],
        "content": unit,
        "item_id": f"{meme['meme_id']}:{unit}",
        "meme_id": meme["meme_id"],
        "unit": unit,
        "text": text,
    }


def _output(made: list[dict[str, Any]]) -> Output:
    frame = pl.DataFrame(made, schema=tables.named_by_content(meme_tables.TAKEN_AWAY))
    return Output(rows=frame, attempts=frame.height)

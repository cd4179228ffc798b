"""Read utterances with one (subject, relation, object) each, as tokens and spans."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.errors import SourceError
from normloom.core.fan_out import each
from normloom.core.rows.ids import seed as seed_of
from normloom.core.stage import Output, dropped_rows, quarantined, quarantined_frame
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas import tables
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step

TOKENS = ("tokens", "head", "tail", "relation")  # as PersonaExt has them
TEXTS = ("text", "subject", "object", "relation")
_LISTS = TOKENS[:3]
WORD = re.compile(r"\w+|[^\w\s]")


class ReadUtterances(Args):
    """Which utterances are taken, and how many the extractor is measured on."""

    limit: int | None = Field(None, ge=1, description="only the first N utterances")
    test_share: float = Field(0.2, gt=0, lt=1, description="held out; utterances of one text are on one side")
    seed: int = Field(42, description="seed of the split")


@step(makes=persona_tables.UTTERANCES, name="utterances", libraries=LIBRARIES)
def read_utterances(args: ReadUtterances, *, source: Located, columns: tuple[str, ...]) -> Output:
    """Return one row for each utterance of a file.

    `columns` are `TOKENS` (tokens, places of the subject and of the object, relation) or `TEXTS` (text, subject and
    object as in the text, relation). An object that is marked with gaps is the span from its first to its last token.
    Quarantine rules: `missing_value`, `no_span` (the object is not in the text).
    """
    read = read_source(source, text_column=None, keep=columns)
    taken, faults = [], []
    given = [read.lists(name) if name in _LISTS else read.text(name) for name in columns]
    for record in read.rows.with_columns(given).iter_rows(named=True):
        try:
            taken.append({"source_row": record["source_row"], **_utterance(record), "split": TRAIN})
        except _BadUtteranceError as error:
            rule, reason = error.args
            entry = {"row_id": None, **{name: _plain(value) for name, value in record.items()}}
            faults.append(quarantined(entry, rule, f"record {record['source_row']}: {reason}"))
    aside = quarantined_frame([*faults, *read.entries])
    if not taken:
        first = aside.row(0, named=True)
        raise SourceError(f"{source.name}: none of {aside.height} records can be used ({first['reason']})")
    texts = [" ".join(one["tokens"]) for one in taken]
    sides = [TEST if seed_of(text, args.seed) % 1_000 < args.test_share * 1_000 else TRAIN for text in texts]
    rows = pl.DataFrame(taken, schema=persona_tables.UTTERANCES.columns).with_columns(split=pl.Series(sides))
    named = zip(texts, taken, strict=True)
    content = [f"{text}\x1f{one['subject']}\x1f{one['object']}\x1f{one['relation']}" for text, one in named]
    rows = rows.with_columns(parents=pl.lit([], dtype=tables.TEXTS), content=pl.Series(content))
    kept = rows.head(args.limit or rows.height)
    beyond = rows.slice(kept.height).with_columns(row_id=pl.lit(None, dtype=pl.String))
    return Output(
        rows=kept,
        dropped=dropped_rows(beyond, reason="limit"),
        quarantined=aside,
        attempts=read.records,
    )


@step(makes=persona_tables.UTTERANCES, fan_out=each())
def held_out(rows: pl.DataFrame) -> Output:
    """Return the utterances of the test split; the others are dropped."""
    return Output(
        rows=rows.filter(split=TEST).drop("parents"),
        dropped=dropped_rows(rows.filter(split=TRAIN), reason="trained on"),
    )


class _BadUtteranceError(Exception):
    """A record is no utterance: its arguments are the rule and the reason."""


def _utterance(record: Mapping[str, Any]) -> dict[str, Any]:
    relation = (record["relation"] or "").strip()
    if not relation:
        raise _BadUtteranceError("missing_value", "no relation")
    if "tokens" in record:
        tokens = record["tokens"] or []
        subject, object_ = (_places(record[name] or (), len(tokens)) for name in ("head", "tail"))
    else:
        tokens = WORD.findall(record["text"] or "")
        subject, object_ = (_span(tokens, record[name] or "") for name in ("subject", "object"))
    if not tokens:
        raise _BadUtteranceError("missing_value", "no text")
    if not object_:
        raise _BadUtteranceError("no_span", "the object is not a span of the text")
    object_ = list(range(min(object_), max(object_) + 1))
    return {"tokens": tokens, "subject": subject, "object": object_, "relation": relation}


def _places(written: Sequence[str], tokens: int) -> list[int]:
    """Return the places of tokens, none if one of them is no place in the text."""
    places = [int(one) for one in written if one.isdecimal()]
    return places if len(places) == len(written) and all(place < tokens for place in places) else []


def _span(tokens: list[str], part: str) -> list[int]:
    """Return the places of the first run of tokens that are those of a part, none if there is none."""
    wanted = [one.lower() for one in WORD.findall(part)]
    lowered = [one.lower() for one in tokens]
    starts = (at for at in range(len(tokens) - len(wanted) + 1) if lowered[at : at + len(wanted)] == wanted)
    start = next(starts, None) if wanted else None
    return [] if start is None else list(range(start, start + len(wanted)))


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, pl.Series)) else value

"""Read utterances with one (subject, relation, object) each, as tokens and spans."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import Field

from normloom.core.fan_out import each
from normloom.core.rows.ids import seed as seed_of
from normloom.core.stage import Output, dropped_rows
from normloom.readers import LIBRARIES, Located, read_source
from normloom.schemas.people import persona_tables
from normloom.schemas.people.persona_tables import TEST, TRAIN
from normloom.steps.args import Args
from normloom.steps.step import step
from normloom.tasks.records import fault, source_rows

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
            faults.append(fault({name: _plain(value) for name, value in record.items()}, rule, reason))
    texts = [" ".join(one["tokens"]) for one in taken]
    sides = [TEST if seed_of(text, args.seed) % 1_000 < args.test_share * 1_000 else TRAIN for text in texts]
    named = zip(texts, taken, strict=True)
    content = [f"{text}\x1f{one['subject']}\x1f{one['object']}\x1f{one['relation']}" for text, one in named]
    rows = pl.DataFrame(taken, schema=persona_tables.UTTERANCES.columns).with_columns(
        split=pl.Series(sides), content=pl.Series(content)
    )
    return source_rows(rows, [*faults, *read.entries], key="content", limit=args.limit, source=source.name)


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

"""What a reply says, if it is the JSON that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.fan_out import each
from normloom.schemas.training import preference_tables
from normloom.schemas.training.preference_tables import BAD, NONE, OK
from normloom.steps.step import step

KEY = "response"
_DECODER = json.JSONDecoder()
_FLAT = re.compile(r"\{[^{}]*\}")
_OPENED = re.compile(rf'"{KEY}":\s*"(.*)', re.DOTALL)


@step(makes=preference_tables.PARSED, name="parsed", part_rows=20_000, fan_out=each())
def parse(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the replies with what they say and how they parsed.

    `ok`: the first flat `{...}` that is JSON with the key `response`, and its value is text. `bad`: the value is no
    text, or there is text after `"response": "`; it can be rejected, never chosen. `none`: neither.
    """
    read = [response_of(raw) for raw in rows["raw_reply"]]
    counts = {
        "json_in_raw": [replies_in(raw) == 1 for raw in rows["raw_reply"]],
        "json_in_response": [text is not None and replies_in(text) == 1 for _, text in read],
    }
    return rows.drop("parents").with_columns(
        pl.Series("parse_status", [status for status, _ in read], dtype=pl.String),
        pl.Series("response", [text for _, text in read], dtype=pl.String),
        pl.Series("words", [None if text is None else len(text.split()) for _, text in read], dtype=pl.Int64),
        *(pl.Series(name, values, dtype=pl.Boolean) for name, values in counts.items()),
    )


def response_of(raw: str) -> tuple[str, str | None]:
    """Return the parse status of a raw reply and its text."""
    for found in objects_in(raw):
        if KEY in found:
            value = found[KEY]
            return (OK, value) if isinstance(value, str) else (BAD, json.dumps(value, ensure_ascii=False))
    opened = _OPENED.search(raw)
    return (BAD, opened[1]) if opened else (NONE, None)


def replies_in(text: str) -> int:
    """Return how many JSON objects with the key `response` are in a text, whatever is between them."""
    found, position = 0, text.find("{")
    while position >= 0:
        try:
            value, after = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            after = position + 1
        else:
            found += isinstance(value, dict) and KEY in value
        position = text.find("{", after)
    return found


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Yield the flat JSON objects in a text."""
    for found in _FLAT.finditer(text):
        try:
            yield json.loads(found[0])
        except (ValueError, RecursionError):
            continue

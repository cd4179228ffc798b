"""JSON from endpoints that take no schema: it is asked for in words, and read from what is written."""

from __future__ import annotations

import json
import re

from normloom.models.requests.chat import BREAK

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def asked_in_words(instruction: str, schema: str) -> str:
    """Return an instruction that also asks for JSON by a schema."""
    wanted = f"Answer with one JSON value that follows this schema, and with nothing else:\n{schema}"
    return BREAK.join(filter(None, [instruction, wanted]))


def json_within(text: str) -> str:
    """Return the JSON in an answer: all of it, or what is fenced in it, or its first object; else the answer."""
    fenced = (found[1] for found in _FENCED.finditer(text))
    objects = (text[place.start() :] for place in re.finditer(r"[{\[]", text))
    for candidate in (text, *fenced, *objects):
        try:
            _, end = json.JSONDecoder().raw_decode(candidate.lstrip())
        except ValueError:
            continue
        return candidate.lstrip()[:end]
    return text

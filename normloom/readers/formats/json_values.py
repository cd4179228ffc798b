"""Reading JSON text as Python values without loss."""

from __future__ import annotations

import json
import math
from typing import Any

from normloom.readers.records import Fault, type_name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} occurs twice in one object")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for 64 bits")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite)


def as_object(value: Any) -> dict[str, object] | Fault:
    """Return a record, or why a value is none."""
    if isinstance(value, dict):
        return value
    return Fault("not_object", f"expected a JSON object, found {type_name(value)}")

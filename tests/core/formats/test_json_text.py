"""Every command's `--json` is JSON that strict readers take."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import NoReturn

from pydantic import BaseModel

from normloom.core.formats.json_text import json_text


class Score(BaseModel):
    value: float


def refused(name: str) -> NoReturn:
    raise ValueError(name)


def test_what_json_lacks_is_null_or_text() -> None:
    infinite = {"a": float("nan"), "b": [float("inf"), (1.5, float("-inf"))], "c": Score(value=float("nan"))}
    others = {"day": date(2026, 1, 2), "price": Decimal("1.50"), "text": "ü"}
    read = json.loads(json_text({**infinite, **others}), parse_constant=refused)
    told = {"day": "2026-01-02", "price": "1.50", "text": "ü"}
    assert read == {"a": None, "b": [None, [1.5, None]], "c": {"value": None}, **told}


def test_a_lone_surrogate_is_its_escape() -> None:
    assert json_text(["a\udc80"]) == '["a\\udc80"]'

"""Markdown of a card: values are shown as they are, never as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_MARKUP = re.compile(r"([\\`*_\[\]<>|~#&])")
_PLACES = 3


def text(value: Any) -> str:
    """Return a value as one line of Markdown without markup; numbers with thousands separators, None as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) > 1:  # a count
            return f"{value:,.0f}"
        return f"{value:,.{_PLACES}f}"
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def code(value: Any) -> str:
    """Return a value as inline code."""
    plain = " ".join(str(value).split()).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose cells are Markdown already; nothing if it has no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", *lines, ""] if lines else []


def block(content: str, language: str = "") -> list[str]:
    """Return the lines of a code block, fenced by more backticks than it holds."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", content)), 3)
    return [f"{fence}{language}", *content.strip().splitlines(), fence, ""]


def size_category(rows: int) -> str:
    """Return the Hugging Face hub's name for a number of rows."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    for power, name in enumerate(names, start=3):
        if rows < 10**power:
            return name
    return "n>1B"

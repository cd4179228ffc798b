"""Markdown and mermaid from values that may hold any character."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """Return a value as plain text on one line, also within a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&!])", r"\\\1", _line(value))


def link(value: object, address: str) -> str:
    """Return a value as a link."""
    return f"[{text(value)}]({address})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are markdown already; nothing if there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *lines]) if lines else ""


def label(value: object) -> str:
    """Return a value as text for the quoted label of a mermaid node."""
    return re.sub(r"[^\w ,:/()-]", lambda found: f"#{ord(found[0])};", _line(value))


def _line(value: object) -> str:
    return " ".join(str(value).split())

"""Rows in a terminal: one line each, or one block each if their columns do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

GAP = 2  # blanks between columns
NARROWEST = 12  # cells; rows whose columns would be cut to less are shown as blocks
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {9: " ", 10: "↵", 13: ""}
_CONTROLS |= {0x2028: "↵", 0x2029: "↵"}


def visible(text: str) -> str:
    """Return a text on one line, with control characters spelled out: a row must not drive the terminal."""
    return text.translate(_CONTROLS)


def cell(value: object) -> str:
    """Return a value as people read it: numbers rounded to six digits, nested values as JSON."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict | tuple):
        return visible(json.dumps(_rounded(value), ensure_ascii=False, default=str))
    return visible(str(value))


def show_rows(console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows cut to the terminal's width; other outputs get full rows, one line each."""
    table = [[cell(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(map(visible, names), *table, strict=True)]
    room = console.width if console.is_terminal or "COLUMNS" in os.environ else sum(widths) + GAP * len(widths)
    cap = _cap(widths, room - GAP * (len(widths) - 1))
    if cap is None:
        _blocks(console, names, table, room)
    else:
        _lines(console, names, table, [min(width, cap) for width in widths])


def _cap(widths: Sequence[int], room: int) -> int | None:
    """Return the maximum column width so that all fit, None if some would be too narrow to read."""
    if sum(widths) <= room:
        return max(widths, default=0)
    for cap in range(min(max(widths), room), NARROWEST - 1, -1):
        if sum(min(width, cap) for width in widths) <= room:
            return cap
    return None


def _lines(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for number, row in enumerate([list(map(visible, names)), *rows]):
        cells = [set_cell_size(_cut(text, width), width) for text, width in zip(row, widths, strict=True)]
        _print(console, Text((" " * GAP).join(cells).rstrip(" "), "" if number else "bold"))


def _blocks(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> None:
    label = max(cell_len(visible(name)) for name in names)
    for number, row in enumerate(rows, start=1):
        _print(console, Text(f"row {number} ".ljust(room, "─"), "dim"))
        for name, value in zip(names, row, strict=True):
            heading = set_cell_size(visible(name), label + GAP)
            _print(console, Text.assemble((heading, "bold"), _cut(value, max(room - label - GAP, 1))))


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _print(console: Console, line: Text) -> None:
    console.print(line, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value

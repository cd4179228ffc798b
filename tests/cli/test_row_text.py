from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from normloom.cli.output.row_text import cell, show_rows, visible


def shown(names: list[str], rows: list[tuple[Any, ...]], *, width: int, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show_rows(console, names, rows)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(written, str)
    return [line.rstrip() for line in written.splitlines()]


def test_rows_that_fit_are_shown_whole() -> None:
    assert shown(["id", "word"], [(1, "one"), (20, None)], width=40) == ["id  word", "1   one", "20"]


def test_a_long_row_is_cut_to_one_line() -> None:
    lines = shown(["prompt", "verdict"], [("x" * 200 + "\nsecond line", "aligned")], width=40)
    assert len(lines) == 2
    assert lines[1].startswith("xxx")
    assert "…" in lines[1]
    assert lines[1].endswith("aligned")
    assert all(cell_len(line) <= 40 for line in lines)


def test_a_row_of_many_columns_is_a_block_of_one_line_a_column() -> None:
    names = [f"column_{number}" for number in range(8)]
    lines = shown(names, [("word " * 30,) * 8] * 2, width=60)
    assert len(lines) == 2 * (1 + 8)
    assert lines[0].startswith("row 1 ")
    assert lines[1].startswith("column_0  word word")
    assert lines[1].endswith("…")
    assert all(cell_len(line) <= 60 for line in lines)


def test_output_that_is_no_terminal_gets_values_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    text = "word " * 100
    lines = shown(["a", "b"], [(text, text)], width=80, terminal=False)
    assert len(lines) == 2
    assert lines[1].count("word") == 200


def test_a_row_cannot_drive_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x9bc\r\nd\te\u2028f") == "a\\x1b[2Jb\\x9bc↵d e↵f"
    assert "\x1b" not in "".join(shown(["a\x1b[2J"], [("\x1b[31mred",)], width=80))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.30000001192092896, "0.3"),
        (8.2e-07, "8.2e-07"),
        (12345678, "12345678"),
        (
            [{"label": "safety/hate", "probability": 0.8199999928474426}],
            '[{"label": "safety/hate", "probability": 0.82}]',
        ),
        ("[bold]", "[bold]"),
    ],
)
def test_values_are_shown_as_people_read_them(value: object, text: str) -> None:
    assert cell(value) == text


@given(
    rows=st.lists(st.tuples(st.text(), st.text(), st.integers(), st.text()), min_size=1, max_size=3),
    width=st.integers(30, 120),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[Any, ...]], width: int) -> None:
    lines = shown(["first", "second", "third", "fourth"], rows, width=width)
    assert all(cell_len(line) <= width for line in lines)

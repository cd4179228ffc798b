from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from normloom.prefect.pages.markdown import label, link, table, text

VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1) | st.text(
    "|`\\*_[]<>#&!~$ ab\n", min_size=1
)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def read(markdown: str) -> list[str]:
    """Return the plain text of each piece of running text."""
    pieces = [token for token in MARKDOWN.parse(markdown) if token.type == "inline"]
    return ["".join(child.content for child in piece.children or []) for piece in pieces]


@given(VALUES, VALUES)
def test_a_cell_reads_as_its_value_whatever_it_holds(first: str, second: str) -> None:
    cells = read(table(("head", "head"), [(text(first), link(second, "/page"))]))
    assert cells == ["head", "head", " ".join(first.split()), " ".join(second.split())]


def test_a_table_without_rows_is_nothing() -> None:
    assert table(("head",), []) == ""


@given(VALUES)
def test_a_label_holds_nothing_that_mermaid_reads(value: str) -> None:
    written = label(value)
    assert not set(written) & set('"`[]<>{}|\n\\*')
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), written) == " ".join(value.split())

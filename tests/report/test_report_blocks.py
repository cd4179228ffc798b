"""What the report shows of data at hand, without a build."""

from __future__ import annotations

import pytest

from normloom.report.blocks import Note
from normloom.report.page import _html
from normloom.report.sections.data.contamination import draw as draw_contamination


def test_a_block_of_another_kind_is_no_block() -> None:
    with pytest.raises(TypeError, match="cannot show a str"):
        _html("text")  # type: ignore[arg-type]  # no block


def test_a_release_that_holds_items_of_a_benchmark_warns() -> None:
    counts = {"benchmark": "b", "items": 9, "items_found": 1, "rows": 2, "by_ngrams": 1, "by_jaccard": 1}
    data = {"benchmarks": [counts], "dropped": 0, "examples": []}
    warned = next(draw_contamination(data))
    assert isinstance(warned, Note)
    assert (warned.text, warned.warning) == (
        "Rows that have an item of a benchmark are listed here and were not dropped.",
        True,
    )

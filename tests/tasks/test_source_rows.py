from __future__ import annotations

import polars as pl
import pytest

from normloom.core.errors import SourceError
from normloom.core.rows.text import commonest_first
from normloom.readers.records import none_usable
from normloom.tasks.records import fault, source_rows

RECORD = {"source_row": 3, "name": "ada"}


def entries(*rules: str) -> list[dict[str, str | None]]:
    return [fault({"source_row": at}, rule, f"it is {rule}") for at, rule in enumerate(rules, start=1)]


def test_a_fault_names_the_record_and_keeps_its_values() -> None:
    assert fault(RECORD | {"row_id": "its own"}, "empty", "no text") == {
        "row_id": None,
        "rule": "empty",
        "reason": "record 3: no text",
        "payload": '{"source_row": 3, "name": "ada"}',
    }


def test_every_record_is_a_row_dropped_or_quarantined() -> None:
    rows = pl.DataFrame({"name": ["ada", "ben", "cleo"]})
    made = source_rows(rows, entries("empty"), key="name", limit=2, source="a.csv")
    assert made.rows.to_dict(as_series=False) == {
        "name": ["ada", "ben"],
        "parents": [[], []],
        "content": ["ada", "ben"],
    }
    assert made.dropped.select("row_id", "reason", "payload").rows() == [(None, "limit", '{"name":"cleo"}')]
    assert made.quarantined["rule"].to_list() == ["empty"]
    assert made.attempts == 4


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], "a.csv has no records: expected texts"),
        (["empty"], "a.csv: its only record cannot be used (empty; record 1: it is empty): expected texts"),
        (
            ["empty", "empty"],
            "a.csv: none of its 2 records can be used (empty; record 1: it is empty): expected texts",
        ),
        (
            ["empty", "long", "long"],
            "a.csv: none of its 3 records can be used (long 2, empty 1; record 2: it is long): expected texts",
        ),
    ],
)
def test_a_source_of_nothing_usable_is_refused_with_the_commonest_reason(rules: list[str], said: str) -> None:
    with pytest.raises(SourceError) as refused:
        source_rows(pl.DataFrame(), entries(*rules), key="name", limit=None, source="a.csv", expected="texts")
    assert str(refused.value) == said


def test_what_an_entry_is_about_can_be_named() -> None:
    assert str(none_usable("photos", entries("unreadable"), noun="item")).startswith("photos: its only item cannot")


@pytest.mark.parametrize(
    ("reasons", "said"), [([], ""), (["long", "long"], "long"), (["short", "long", "long"], "long 2, short 1")]
)
def test_reasons_are_counted_if_there_are_several(reasons: list[str], said: str) -> None:
    assert commonest_first(reasons) == said

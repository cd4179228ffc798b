"""The order in which rows are asked about, by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import polars as pl
import pytest
from hand_answers import QUESTIONS

from normloom.core.errors import ConfigError
from normloom.labelling.asking import Asking
from normloom.labelling.questions import LabelSchema
from normloom.tasks.labels.orders import ordered


def places(values: list[Any], **asking: Any) -> list[int]:
    """Return the rows, by number, in the order in which they are asked about."""
    rows = pl.DataFrame({"row_id": [f"{number:032x}" for number in range(len(values))], "p": values})
    args = Asking(name="tone", asks=LabelSchema.of(QUESTIONS), show=("p",), **asking)
    return [int(row, 16) for row in ordered(rows, args)["row_id"]]


def test_uncertain_rows_come_first() -> None:
    assert places([0.9, 0.4, 0.55, 0.0], order="uncertainty", by="p") == [2, 1, 0, 3]
    # of three options: all alike (entropy 1), two alike (0.63), one certain (0)
    assert places([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.3, 0.3, 0.3]], order="uncertainty", by="p") == [2, 1, 0]


def test_why_a_row_was_chosen_is_told() -> None:
    rows = pl.DataFrame({"row_id": ["a"], "p": [0.9]})
    args = Asking(name="tone", asks=LabelSchema.of(QUESTIONS), show=("p",), order="uncertainty", by="p")
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))  # 0.469
    assert ordered(rows, args)["chosen_by"].to_list() == [f"uncertainty {entropy:.2f}"]


def test_rows_near_the_threshold_come_first() -> None:
    assert places([0.1, 0.75, 0.6, 0.95], order="margin", by="p", threshold=0.7) == [1, 2, 3, 0]
    assert places([[0.9, 0.1], [0.4, 0.5, 0.1], [0.7, 0.3]], order="margin", by="p") == [1, 2, 0]


def test_rows_of_which_nothing_is_known_come_last() -> None:
    assert places([None, 0.9, 0.5], order="margin", by="p") == [2, 1, 0]
    assert places([None, 0.9, 0.5], order="uncertainty", by="p")[-1] == 0


def test_rows_may_be_asked_about_as_they_are_given() -> None:
    assert places([0.9, 0.1, 0.5], order="given") == [0, 1, 2]


def test_groups_take_turns() -> None:
    groups = ["a"] * 6 + ["b"] * 2 + ["c"]
    order = places(groups, order="group", by="p")
    assert {groups[place] for place in order[:3]} == {"a", "b", "c"}
    assert {groups[place] for place in order[3:5]} == {"a", "b"}
    assert Counter(groups[place] for place in order) == Counter(groups)


def test_a_random_order_is_that_of_its_seed() -> None:
    values = list(range(50))
    assert places(values) == places(values) != sorted(values)
    assert places(values) != places(values, seed=1)
    assert places(values, take=5) == places(values)[:5]


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="ask 'tone': unknown column 'q'; available: row_id, p"):
        places([0.5], order="margin", by="q")
    with pytest.raises(ConfigError, match="ask 'tone': column 'p' must hold numbers"):
        places(["x"], order="uncertainty", by="p")

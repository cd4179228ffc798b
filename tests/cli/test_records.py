from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normloom as nl
from normloom.api.records import frame_of
from normloom.core.errors import UsageError

NAIVE = datetime.fromisoformat("2026-01-01T00:00")
VALUES = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()),
    st.lists(st.integers(0, 2**64 - 1)),
    st.lists(st.floats(allow_nan=False) | st.none()),
    st.lists(st.text() | st.none()),
    st.lists(st.binary() | st.none()),
    st.lists(st.booleans() | st.none()),
    st.lists(st.datetimes() | st.none()),
    st.lists(st.lists(st.integers(-9, 9))),
)


@given(VALUES)
def test_values_of_one_type_come_back_as_they_were(values: list[Any]) -> None:
    assert frame_of([{"a": value} for value in values]).to_dicts() == [{"a": value} for value in values]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1, "x"], "column 'a' holds int (record 0) and str (record 1): make all its values of one type"),
        ([None, "x", b"x"], "holds str (record 1) and bytes (record 2)"),
        ([[1], [1, "x"]], "column 'a[]' holds int (record 0) and str (record 1)"),
        ([{"b": 1}, {"b": "x"}], "column 'a.b' holds int (record 0) and str (record 1)"),
        ([2**53 + 1, 0.5], "9007199254740993 (record 0), which is not exact as a float"),
        ([2**64], "which takes more than 64 bits"),
        ([2**63, -1], "-1 (record 1), and others that take 64 bits without a sign"),
        ([Decimal("NaN")], "which is no number"),
        ([datetime(2026, 1, 1, tzinfo=UTC), NAIVE], "without a time zone, and others with one"),
        ([pd.Timestamp("2026-01-01 00:00:00.000000001")], "whose nanoseconds would be lost"),
        ([pd.NaT, NAIVE], "a value of type NaT (record 0): convert it"),
        ([object()], "a value of type object (record 0): convert it"),
    ],
)
def test_values_that_would_change_are_refused_with_column_and_record(values: list[Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        nl.table([{"a": value} for value in values], name="mine")
    assert str(caught.value).startswith("table 'mine': column 'a")
    assert sentence in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    rows = frame_of([{"a": np.int64(1), "b": np.float64(0.5), "c": np.bool_(True)}, {"a": 2, "b": 1, "c": False}])
    assert rows.to_dicts() == [{"a": 1, "b": 0.5, "c": True}, {"a": 2, "b": 1.0, "c": False}]


def test_an_index_of_pandas_with_a_name_is_a_column() -> None:
    stage = nl.table(pd.DataFrame({"a": ["x"]}, index=pd.Index([7], name="id")))
    assert stage.function(stage.arguments, **stage.values).rows.select("id", "a").to_dicts() == [{"id": 7, "a": "x"}]


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [(pl.Struct([]), "objects without fields"), (pl.List(pl.Struct([])), "objects without fields")],
)
def test_a_column_that_no_file_can_hold_is_refused(dtype: pl.DataType, reason: str) -> None:
    with pytest.raises(UsageError, match=f"column 'a' holds {reason}"):
        nl.table(pl.DataFrame(schema={"a": dtype}))

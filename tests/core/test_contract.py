from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from normloom.core.contract import Check, Contract
from normloom.core.errors import CheckError, ConfigError, ContractError
from normloom.run.checks.table_checks import require, run_checks

PEOPLE = Contract(columns={"name": pl.String(), "age": pl.Int64()}, nullable=frozenset({"age"}))


def people(**columns: object) -> pl.DataFrame:
    ids = [f"r{number}" for number in range(2)]
    return pl.DataFrame({"row_id": ids, "parents": [[], []], "name": ["a", "b"], "age": [1, None], **columns})


def test_returns_the_columns_in_the_contract_s_order_and_types() -> None:
    rows = people(age=pl.Series([1, None], dtype=pl.Int8)).select("age", "name", "parents", "row_id")
    typed = PEOPLE.enforce(rows, stage="people")
    assert dict(typed.schema) == {
        "row_id": pl.String,
        "parents": pl.List(pl.String),
        "name": pl.String,
        "age": pl.Int64,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (people().drop("age"), r"differ from its contract: missing \['age'\]$"),
        (people(extra=[1, 2]), r"not in the contract \['extra'\] \(add them to `makes`, or leave them out\)$"),
        (people(age=["x", "1"]), r"column 'age' is String, its contract says Int64: conversion[^\n]*$"),
        (people(name=["a", None]), r"column 'name' may not be null, but is in 1 row \(row r1\)"),
        (people(row_id=["r", "r"]), r"key \('row_id',\) is not unique"),
    ],
)
def test_rows_that_break_the_contract_are_named(rows: pl.DataFrame, message: str) -> None:
    with pytest.raises(ContractError, match=f"stage 'people'.*{message}"):
        PEOPLE.enforce(rows, stage="people")


def checked(expectation: str, on_fail: str = "stop", **arguments: object) -> Contract:
    check = Check(expectation=expectation, arguments=arguments, on_fail=on_fail)  # type: ignore[arg-type]
    return Contract(columns=PEOPLE.columns, nullable=PEOPLE.nullable, checks=(check,))


def test_a_check_fails_in_one_of_three_ways() -> None:
    with pytest.raises(ConfigError, match=r"values_to_be_unique\(age\): on_fail must be one of warn, quarantine, stop"):
        checked("expect_column_values_to_be_unique", "fail", column="age")


def test_a_check_that_holds_passes() -> None:
    [result], aside = run_checks(people().lazy(), checked("expect_table_row_count_to_equal", value=2))
    assert result.passed
    assert not aside
    require([result], stage="people")


def test_a_check_says_what_it_found() -> None:
    [result], _ = run_checks(
        people().lazy(), checked("expect_column_values_to_be_in_set", column="name", value_set=["a"])
    )
    assert (result.passed, result.detail) == (False, '1 of 2 rows, such as ["b"]')
    with pytest.raises(CheckError, match="stage 'people' is not published"):
        require([result], stage="people")


def test_a_check_names_the_rows_to_quarantine() -> None:
    contract = checked("expect_column_values_to_not_be_null", "quarantine", column="age")
    _, aside = run_checks(people().lazy(), contract)
    assert aside == {"r1": "expect_column_values_to_not_be_null(age)"}


def test_a_check_that_raises_fails_the_gate() -> None:
    [result], _ = run_checks(people().lazy(), checked("expect_column_mean_to_be_between", column="name", min_value=0))
    assert not result.passed
    with pytest.raises(CheckError):
        require([result], stage="people")


def test_an_expectation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CheckError, match="unknown Great Expectations expectation 'expect_magic'"):
        run_checks(people().lazy(), checked("expect_magic", column="name"))


def test_a_large_table_is_checked_in_slices_with_the_same_results() -> None:
    ages = [5, 1, 3, 2, 9, 2, 1]
    rows = pl.DataFrame({"row_id": [f"r{n}" for n in range(7)], "name": ["a"] * 7, "age": ages})
    between = {"column": "age", "min_value": 2, "max_value": 8}
    contract = Contract(
        columns=PEOPLE.columns,
        checks=(
            Check(expectation="expect_column_values_to_be_between", arguments=between, on_fail="quarantine"),
            Check(expectation="expect_column_values_to_be_between", arguments={**between, "mostly": 0.5}),
            Check(expectation="expect_column_values_to_be_unique", arguments={"column": "age"}, on_fail="quarantine"),
            Check(expectation="expect_column_mean_to_be_between", arguments={"column": "age", "max_value": 4}),
            Check(expectation="expect_table_row_count_to_equal", arguments={"value": 7}),
            Check(expectation="expect_column_values_to_not_be_null", arguments={"column": "age"}, on_fail="warn"),
        ),
    )
    whole, aside = run_checks(rows.lazy(), contract)
    unique = "expect_column_values_to_be_unique(age)"
    assert [result.passed for result in whole] == [False, True, False, True, True, True]
    assert whole[0].detail == "3 of 7 rows, such as [1, 9, 1]"
    assert aside == {
        "r1": unique,
        "r3": unique,
        "r4": "expect_column_values_to_be_between(age)",
        "r5": unique,
        "r6": unique,
    }
    assert run_checks(rows.lazy(), contract, rows_at_once=2) == (whole, aside)


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([1.5], pl.Int64(), "1.5 would become 1"),
        ([[1.0, 1.5]], pl.List(pl.Int64), r"\[1.0, 1.5\] would become \[1, 1\]"),
        ([1, 2], pl.Boolean(), "2 would become True"),
        (["7", "007"], pl.Int64(), "'007' would become 7"),
        ([2**53 + 1], pl.Float64(), "9007199254740993 would become 9007199254740992.0"),
        ([Decimal("1.25")], pl.Decimal(10, 1), r"Decimal\('1.25'\) would become Decimal\('1.2'\)"),
        ([datetime(2026, 1, 1, 5)], pl.Date(), ".*would become datetime.date"),  # noqa: DTZ001  # without a zone
        ([datetime(2026, 1, 1, tzinfo=UTC)], pl.Date(), "one has a time zone, the other has none"),
        ([datetime(2026, 1, 1, tzinfo=UTC)], pl.Datetime("us"), "one has a time zone, the other has none"),
        ([5], pl.Date(), "a number is no time"),
        ([date(2026, 1, 1)], pl.Int64(), "a time is no number"),
        ([date(2026, 1, 1)], pl.Datetime("us", "UTC"), "one has a time zone, the other has none"),
        ([5], pl.Struct({"x": pl.Int64}), "one is nested, the other is not, or not in the same way"),
        ([{"x": 5}], pl.Int64(), "one is nested, the other is not, or not in the same way"),
    ],
)
def test_a_type_in_which_a_value_would_be_another_is_refused(
    values: list[Any], dtype: pl.DataType, reason: str
) -> None:
    rows = pl.DataFrame({"row_id": map(str, values), "parents": [[]] * len(values), "a": values})
    with pytest.raises(ContractError, match=f"column 'a' is .*, its contract says .*: {reason}"):
        Contract(columns={"a": dtype}).enforce(rows, stage="s")


LEAVES = [
    pl.Series([1]),
    pl.Series([2], dtype=pl.UInt8),
    pl.Series([1.5]),
    pl.Series([True]),
    pl.Series(["7"]),
    pl.Series(["007"]),
    pl.Series(["7"], dtype=pl.Categorical),
    pl.Series([b"7"]),
    pl.Series([date(2026, 1, 2)]),
    pl.Series([datetime(2026, 1, 2, tzinfo=UTC)]).dt.replace_time_zone(None),
    pl.Series([datetime(2026, 1, 2, 3, tzinfo=UTC)]).dt.replace_time_zone(None).dt.cast_time_unit("ms"),
    pl.Series([datetime(2026, 1, 2, tzinfo=UTC)]),
    pl.Series([datetime(2026, 1, 2, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin"),
    pl.Series([time(3, 4)]),
    pl.Series([timedelta(seconds=5)]),
    pl.Series([Decimal("1.25")]),
]
NESTS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "list": lambda one: one.implode(),
    "array": lambda one: one.reshape((1, 1)),
    "struct": lambda one: pl.DataFrame({"x": one, "y": ["same"]}).to_struct(),
    "list of structs": lambda one: pl.DataFrame({"x": one}).to_struct().implode(),
}


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_a_value_in_a_list_or_an_object_is_held_to_its_type_like_one_that_stands_alone(
    nest: Callable[[pl.Series], pl.Series],
) -> None:
    for before, after in itertools.product(LEAVES, LEAVES):
        assert _held(nest(before), nest(after)) == _held(before, after), (before, after)


def _held(before: pl.Series, after: pl.Series) -> bool:
    """Return whether a contract with the type of one column takes the other."""
    rows = pl.DataFrame({"row_id": ["r"], "parents": [[]], "a": before})
    try:
        made = Contract(columns={"a": after.dtype}).enforce(rows, stage="s")
    except ContractError:
        return False
    assert made["a"].dtype == after.dtype
    return True


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        ([1.0, None], pl.Int64(), [1, None]),
        ([7], pl.String(), ["7"]),
        ([[0.1]], pl.List(pl.Float32), [[float(np.float32(0.1))]]),
        ([{"a": 0.1}], pl.Struct({"a": pl.Float32}), [{"a": float(np.float32(0.1))}]),
        ([None], pl.String(), [None]),
    ],
)
def test_a_type_that_holds_the_values_is_taken_and_floats_may_be_narrower(
    values: list[Any], dtype: pl.DataType, stored: list[Any]
) -> None:
    rows = pl.DataFrame({"row_id": map(str, values), "parents": [[]] * len(values), "a": values}, strict=False)
    made = Contract(columns={"a": dtype}, nullable=frozenset("a")).enforce(rows, stage="s")
    assert made["a"].to_list() == stored
    assert made["a"].dtype == dtype

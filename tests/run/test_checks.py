"""Checks that Polars makes find what Great Expectations finds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normloom.core.contract import Check, Contract
from normloom.run.checks.columns import looked_at, question
from normloom.run.checks.expectations import expected
from normloom.run.checks.outcome import Outcome
from normloom.run.checks.table_checks import Checked, run_checks

COLUMNS = {
    "row_id": pl.String(),
    "text": pl.String(),
    "count": pl.Int64(),
    "share": pl.Float64(),
    "done": pl.Boolean(),
}
VALUES = {
    "text": st.sampled_from(["", "a", "b", "nul\x00l", "é", "𝄞𝄞", "a longer text"]),
    "count": st.integers(-3, 3),
    "share": st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, math.nan, math.inf]),
    "done": st.booleans(),
}
BOUNDS: list[dict[str, Any]] = [
    {"min_value": 0},
    {"max_value": 1},
    {"min_value": 0, "max_value": 1, "strict_min": True},
    {"min_value": 0.0, "max_value": 1.0, "strict_max": True},
    {"min_value": 1, "max_value": None},
]
CHECKS = [
    *(
        Check(expectation=f"expect_column_values_to_be_{kind}", arguments={"column": column}, on_fail="quarantine")
        for kind in ("null", "unique")
        for column in VALUES
    ),
    *(Check(expectation="expect_column_values_to_not_be_null", arguments={"column": column}) for column in VALUES),
    *(
        Check(expectation=f"expect_column_values_to_{not_}be_in_set", arguments={"column": column, "value_set": values})
        for not_ in ("", "not_")
        for column, values in (("text", ["a", "é"]), ("count", [0, 1]), ("share", [0, 0.5]), ("done", [True]))
    ),
    *(
        Check(expectation=f"expect_column_{what}_to_be_between", arguments={"column": column, **bounds})
        for what in ("values", "max", "min", "mean")
        for column in ("count", "share")
        for bounds in BOUNDS
    ),
    *(
        Check(expectation="expect_column_value_lengths_to_be_between", arguments={"column": "text", **bounds})
        for bounds in BOUNDS
    ),
    Check(expectation="expect_column_value_lengths_to_equal", arguments={"column": "text", "value": 1}),
    *(Check(expectation="expect_table_row_count_to_be_between", arguments=bounds) for bounds in BOUNDS),
    Check(expectation="expect_table_row_count_to_equal", arguments={"value": 2}),
]


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    height = draw(st.integers(0, 6))
    columns = {
        name: draw(st.lists(st.none() | values, min_size=height, max_size=height)) for name, values in VALUES.items()
    }
    return pl.DataFrame({"row_id": [f"r{n}" for n in range(height)], **columns}, schema=COLUMNS)


def same(rows: pl.DataFrame, checks: list[Check]) -> None:
    table = rows.lazy()
    asked = [question(check, COLUMNS) for check in checks]
    ours = looked_at(table, [one for one in asked if one])
    theirs = expected(table, checks, rows_at_once=100)
    assert len(ours) == len(checks)
    for one, other in zip(ours, theirs, strict=True):
        assert facts(one) == facts(other)
        assert figure(one) == pytest.approx(figure(other), nan_ok=True)


def facts(found: Outcome) -> tuple[object, ...]:
    return found.check, found.passed, found.rows, found.unexpected, list(found.failing), len(found.sample)


def figure(found: Outcome) -> float:
    return float((found.observed or "null").replace("null", "nan").replace("NaN", "nan"))


def test_polars_makes_each_check_as_great_expectations_does() -> None:
    rows = {
        "text": ["a", "b", None, "", "𝄞𝄞", "a"],
        "count": [0, 1, None, -3, 2, 1],
        "share": [0.0, 0.5, math.nan, None, 1.0, 2.0],
        "done": [True, None, False, True, True, True],
    }
    same(pl.DataFrame({"row_id": list("uvwxyz"), **rows}, schema=COLUMNS), CHECKS)


@settings(max_examples=10)
@given(tables(), st.lists(st.sampled_from(CHECKS), min_size=10, max_size=10))
def test_polars_finds_what_great_expectations_finds(rows: pl.DataFrame, checks: list[Check]) -> None:
    same(rows, checks)


def test_rows_of_all_parts_are_compared(tmp_path: Path) -> None:
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, ids, counts in zip(parts, ("abc", "def"), ([1, 2, None], [1, 3, None]), strict=True):
        pl.DataFrame({"row_id": list(ids), "count": counts}).write_parquet(path)
    kinds = {"expect_column_values_to_be_unique": "ad", "expect_column_values_to_not_be_null": "cf"}
    checks = tuple(Check(expectation=one, arguments={"column": "count"}, on_fail="quarantine") for one in kinds)
    contract = Contract(columns={"count": pl.Int64()}, nullable=frozenset({"count"}), checks=checks)
    _, aside = run_checks(pl.scan_parquet(parts, glob=False), contract)
    assert aside == {row: f"{kind}(count)" for kind, rows in kinds.items() for row in rows}


@settings(max_examples=100)
@given(tables(), st.integers(0, 6), st.lists(st.sampled_from(CHECKS), min_size=10, max_size=10))
def test_rows_that_an_earlier_table_had_count_as_if_they_were_looked_at(
    rows: pl.DataFrame, size: int, checks: list[Check]
) -> None:
    contract = Contract(columns={}, checks=tuple(checks))
    old, new = rows[:size].lazy(), rows[size:].lazy()
    before, _ = run_checks(old, contract)
    known = Checked(results=before, rows=old.collect().height, new=new)
    assert run_checks(rows.lazy(), contract, checked=known) == run_checks(rows.lazy(), contract)


def test_rows_that_passed_in_an_earlier_table_are_not_read_again(tmp_path: Path) -> None:
    check = Check(expectation="expect_column_values_to_not_be_null", arguments={"column": "count"})
    contract = Contract(columns={}, checks=(check,))
    rows = pl.LazyFrame({"row_id": ["a", "b"], "count": [1, 2]})
    before, _ = run_checks(rows, contract)
    rows.sink_parquet(path := tmp_path / "rows.parquet")
    lost = pl.scan_parquet(path, glob=False)
    lost.collect_schema()
    path.unlink()
    known = Checked(results=before, rows=2, new=rows.head(0))
    assert run_checks(lost, contract, checked=known) == (before, {})


@pytest.mark.parametrize(
    ("expectation", "arguments"),
    [
        ("expect_column_values_to_match_regex", {"column": "text", "regex": "a"}),
        ("expect_column_values_to_be_between", {"column": "count", "min_value": 0, "mostly": 0.5}),
        ("expect_column_values_to_be_between", {"column": "text", "min_value": "a"}),
        ("expect_column_values_to_be_in_set", {"column": "count", "value_set": ["1"]}),
        ("expect_column_values_to_be_unique", {"column": "missing"}),
        ("expect_column_values_to_be_null", {"column": "tags"}),
        ("expect_column_mean_to_be_between", {"column": "text", "min_value": 0}),
        ("expect_column_mean_to_be_between", {"column": "count"}),
        ("expect_column_values_to_be_between", {"column": "count"}),
        ("expect_column_value_lengths_to_equal", {"column": "count", "value": 1}),
        ("expect_table_row_count_to_be_between", {}),
        ("expect_magic", {"column": "count"}),
    ],
)
def test_what_is_not_known_here_is_left_to_great_expectations(expectation: str, arguments: dict[str, Any]) -> None:
    schema = {**COLUMNS, "tags": pl.List(pl.String())}
    assert question(Check(expectation=expectation, arguments=arguments), schema) is None


def test_great_expectations_looks_at_single_rows_piece_by_piece() -> None:
    rows = pl.DataFrame({"row_id": list("uvwxyz"), "text": ["a", "b", "a", "ab", "b", "a"]})
    check = Check(
        expectation="expect_column_values_to_match_regex",
        arguments={"column": "text", "regex": "^a$"},
        on_fail="quarantine",
    )
    [found] = expected(rows.lazy(), [check], rows_at_once=2)
    assert (found.passed, found.rows, found.unexpected, list(found.failing)) == (False, 6, 3, ["v", "x", "y"])

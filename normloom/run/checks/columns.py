"""Common expectations as Polars expressions: all of a table's are one query, and nothing has to be imported.

They find what Great Expectations finds: nulls and NaN are values only to those that ask for them. An expectation with
an argument or a column type that is not known here is left to that library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from normloom.core.contract import Check
from normloom.run.checks.outcome import SAMPLE, Outcome


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a check asks of a table: which rows fail (`bad`), or whether a figure of the table lies in a range.

    `by_row` says that whether a row fails depends on no other row.
    """

    check: Check
    figure: pl.Expr
    bad: pl.Expr | None = None
    within: Callable[[Any], bool] = bool
    by_row: bool = False


def question(check: Check, schema: Mapping[str, pl.DataType]) -> Question | None:
    """Return what a check asks of a table with this schema, None if that is for Great Expectations to say."""
    arguments = {name: value for name, value in check.arguments.items() if value is not None}
    name = check.expectation
    if name in _OF_TABLES:
        return _of_table(check, arguments) if set(arguments) <= _OF_TABLES[name] and arguments else None
    column, dtype = arguments.get("column"), schema.get(str(arguments.get("column")))
    if dtype is None or name not in _ARGUMENTS or not set(arguments) - {"column"} <= _ARGUMENTS[name]:
        return None
    value = pl.col(str(column))
    value = value.fill_nan(None) if dtype.is_float() else value
    if name in _FIGURES:
        if not dtype.is_numeric() or dtype.is_decimal() or not _has_bounds(arguments):
            return None
        return Question(check=check, figure=_FIGURES[name](value), within=lambda found: _lies(found, arguments))
    good = _good(name, value, dtype, arguments)
    if good is None:
        return None
    bad = ~good if name in _OF_NULLS else value.is_not_null() & ~good
    return Question(check=check, figure=bad.sum(), bad=bad, by_row=name not in _OF_GROUPS)


def looked_at(table: pl.LazyFrame, questions: Sequence[Question]) -> list[Outcome]:
    """Return what each check found in the table; rows that fail are looked for only if there are some."""
    if not questions:
        return []
    figures = [asked.figure.alias(str(place)) for place, asked in enumerate(questions)]
    answers = table.select(pl.len().alias("rows"), *figures).collect(engine="streaming").row(0, named=True)
    return [_outcome(table, asked, answers[str(place)], answers["rows"]) for place, asked in enumerate(questions)]


def _outcome(table: pl.LazyFrame, asked: Question, found: Any, rows: int) -> Outcome:
    check = asked.check
    if asked.bad is None:
        return Outcome(check=check, passed=asked.within(found), observed=json.dumps(found, default=str))
    if not found:
        return Outcome(check=check, passed=True, rows=rows)
    failing = table.filter(asked.bad)
    column = str(check.arguments["column"])
    sample = failing.select(column).head(SAMPLE).collect()[column].to_list()
    ids = failing.select("row_id").collect()["row_id"].to_list() if check.on_fail == "quarantine" else ()
    return Outcome(check=check, passed=False, rows=rows, unexpected=found, sample=sample, failing=ids)


_BOUNDS = frozenset({"min_value", "max_value", "strict_min", "strict_max"})
_OF_TABLES = {
    "expect_table_row_count_to_equal": frozenset({"value"}),
    "expect_table_row_count_to_be_between": _BOUNDS,
}
_FIGURES: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "expect_column_max_to_be_between": pl.Expr.max,
    "expect_column_mean_to_be_between": pl.Expr.mean,
    "expect_column_min_to_be_between": pl.Expr.min,
}
_OF_NULLS = frozenset({"expect_column_values_to_be_null", "expect_column_values_to_not_be_null"})
_OF_GROUPS = frozenset({"expect_column_values_to_be_unique"})
_ARGUMENTS = {
    **dict.fromkeys(_FIGURES, _BOUNDS),
    **dict.fromkeys(_OF_NULLS, frozenset[str]()),
    "expect_column_value_lengths_to_be_between": _BOUNDS,
    "expect_column_value_lengths_to_equal": frozenset({"value"}),
    "expect_column_values_to_be_between": _BOUNDS,
    "expect_column_values_to_be_in_set": frozenset({"value_set"}),
    "expect_column_values_to_be_unique": frozenset[str](),
    "expect_column_values_to_not_be_in_set": frozenset({"value_set"}),
}


def _of_table(check: Check, arguments: Mapping[str, Any]) -> Question | None:
    if "value" in arguments:
        return Question(check=check, figure=pl.len(), within=lambda found: bool(found == arguments["value"]))
    if not _has_bounds(arguments):
        return None
    return Question(check=check, figure=pl.len(), within=lambda found: _lies(found, arguments))


def _good(name: str, value: pl.Expr, dtype: pl.DataType, arguments: Mapping[str, Any]) -> pl.Expr | None:
    """Return which values are as expected, None if Great Expectations has to say."""
    plain = dtype in {pl.String(), pl.Boolean()} or (dtype.is_numeric() and not dtype.is_decimal())
    if not plain:
        return None
    if name == "expect_column_values_to_be_null":
        return value.is_null()
    if name == "expect_column_values_to_not_be_null":
        return value.is_not_null()
    if name == "expect_column_values_to_be_unique":
        return value.is_unique()
    if name.endswith("in_set"):
        values = list(arguments.get("value_set", ()))
        if not values or not all(_is_of(one, dtype) for one in values):
            return None
        if any(isinstance(one, float) for one in values) or dtype.is_float():
            value, values = value.cast(pl.Float64()), list(map(float, values))
        among = value.is_in(values)
        return ~among if name == "expect_column_values_to_not_be_in_set" else among
    if "lengths" in name:
        if dtype != pl.String():
            return None
        length = value.str.len_chars()
        return length == arguments["value"] if "value" in arguments else _between(length, arguments)
    return _between(value, arguments) if dtype.is_numeric() else None


def _is_of(value: Any, dtype: pl.DataType) -> bool:
    if isinstance(value, bool):
        return dtype == pl.Boolean()
    return isinstance(value, str) if dtype == pl.String() else dtype.is_numeric() and isinstance(value, int | float)


def _has_bounds(arguments: Mapping[str, Any]) -> bool:
    bounds = [arguments[name] for name in ("min_value", "max_value") if name in arguments]
    return bool(bounds) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in bounds)


def _between(value: pl.Expr, arguments: Mapping[str, Any]) -> pl.Expr | None:
    if not _has_bounds(arguments):
        return None
    good = pl.lit(value=True)
    if "min_value" in arguments:
        low = arguments["min_value"]
        good &= value > low if arguments.get("strict_min") else value >= low
    if "max_value" in arguments:
        high = arguments["max_value"]
        good &= value < high if arguments.get("strict_max") else value <= high
    return good


def _lies(found: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether a figure lies within bounds; a table without values has none, which fails."""
    if found is None:
        return False
    low, high = arguments.get("min_value"), arguments.get("max_value")
    above = low is None or (found > low if arguments.get("strict_min") else found >= low)
    below = high is None or (found < high if arguments.get("strict_max") else found <= high)
    return bool(above and below)

"""What a table must be: columns and keys, checked in every part, and checks, run before it is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import polars as pl

from normloom.core.errors import ConfigError, ContractError
from normloom.core.rows.text import counted

Action = Literal["warn", "quarantine", "stop"]
_Type = pl.DataType | pl.datatypes.DataTypeClass
_OF_PANDAS = {"pandas.period": "periods", "pandas.interval": "intervals"}

IDENTITY = {"row_id": pl.String(), "parents": pl.List(pl.String())}
RESERVED = (*IDENTITY, "content", "through")  # what a step's rows tell the runner in columns of these names


@dataclass(frozen=True, kw_only=True)
class Check:
    """A Great Expectations expectation about the whole table, and what happens if it fails.

    `expectation` is the snake-case type (`expect_column_values_to_be_between`). `quarantine` takes out
    the rows that fail, so it is only for expectations about single rows.
    """

    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    on_fail: Action = "stop"

    def __post_init__(self) -> None:
        if self.on_fail not in get_args(Action):
            raise ConfigError(
                f"check {self.name}: on_fail must be one of {', '.join(get_args(Action))}, not {self.on_fail!r}"
            )

    @property
    def name(self) -> str:
        """The expectation and the column it looks at, for reports."""
        column = self.arguments.get("column")
        return f"{self.expectation}({column})" if column else self.expectation


def unstorable(dtype: _Type) -> str | None:
    """Say what in a type a table of Parquet files cannot hold so that others can read it, None if nothing."""
    if dtype == pl.Object:
        return "Python objects: convert them"
    if dtype in (pl.Int128, pl.UInt128):
        return "integers of 128 bits: make them text, or integers of 64 bits"
    if isinstance(dtype, pl.BaseExtension) and dtype.ext_name() in _OF_PANDAS:
        return f"{_OF_PANDAS[dtype.ext_name()]} of pandas, which others read as numbers: make them text (astype(str))"
    if isinstance(dtype, pl.List | pl.Array):
        return unstorable(dtype.inner)
    if isinstance(dtype, pl.Struct):
        found = (unstorable(field.dtype) for field in dtype.fields)
        return (
            next((reason for reason in found if reason), None)
            if dtype.fields
            else "objects without fields: make them text"
        )
    return None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Columns besides `row_id` and `parents` with their types, columns that may be null, keys and checks.

    With `extra` a table may have further columns, which are stored after these unchanged: a user's own, whose
    names and types only the source knows.
    """

    columns: Mapping[str, pl.DataType]
    nullable: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ("row_id",)
    checks: tuple[Check, ...] = ()
    extra: bool = False

    def __post_init__(self) -> None:
        if taken := [name for name in self.columns if name in RESERVED]:
            raise ConfigError(f"a table cannot have a column {taken[0]!r}: Normloom reserves the name; choose another")
        for name, dtype in self.columns.items():
            if reason := unstorable(dtype):
                raise ConfigError(f"a table cannot have a column {name!r} of {reason}")
        for told in ("keys", "nullable"):
            names = getattr(self, told)
            if isinstance(names, str):
                raise ConfigError(f"{told} of a contract: expected a collection of columns, got the text {names!r}")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """All columns in the order they are stored in."""
        return {**IDENTITY, **self.columns}

    def enforce(self, rows: pl.DataFrame, *, stage: str) -> pl.DataFrame:
        """Return the rows with exactly the contract's columns (and with `extra` all others), or raise ContractError.

        Types are cast only if the cast is lossless (a null column, a narrower number).
        """
        missing = [name for name in self.schema if name not in rows.columns]
        further = [name for name in rows.columns if name not in self.schema]
        unknown = [] if self.extra else further
        if missing or unknown:
            told = f"missing {missing}" if missing else ""
            told += ", " if missing and unknown else ""
            told += f"not in the contract {unknown} (add them to `makes`, or leave them out)" if unknown else ""
            raise ContractError(f"stage {stage!r} made columns that differ from its contract: {told}")
        typed = rows.select(*(self._cast(rows[name], stage) for name in self.schema), *further)
        for name in self.schema:
            if name not in self.nullable and (nulls := typed[name].null_count()):
                where = typed.row(by_predicate=pl.col(name).is_null(), named=True) if nulls == 1 else None
                row = f" (row {where['row_id']})" if where else ""
                raise ContractError(
                    f"stage {stage!r}: column {name!r} may not be null, but is in {counted(nulls)}{row}"
                )
        if self.keys and typed.select(pl.struct(self.keys).is_duplicated().any()).item():
            raise ContractError(f"stage {stage!r}: key {self.keys} is not unique")
        return typed

    def _cast(self, column: pl.Series, stage: str) -> pl.Series:
        dtype, cast = self.schema[column.name], column
        if column.dtype == dtype:
            return column
        try:
            reason = _unlike(column.dtype, dtype)
            if reason is None:
                cast = column.cast(dtype, strict=True)
                reason = _loss(column, cast)
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
        if reason:
            raise ContractError(
                f"stage {stage!r}: column {column.name!r} is {column.dtype}, its contract says {dtype}: {reason}"
            )
        return cast


def _loss(column: pl.Series, cast: pl.Series) -> str | None:
    """Say which value is another one in its new type, None if there is none; floats may become narrower."""
    if _narrowed(column.dtype) == _narrowed(cast.dtype):
        return None
    back = cast.cast(column.dtype, strict=False)
    lost = column.ne_missing(back)
    before, after = (one.filter(lost).head(1).to_list() for one in (column, cast))
    return f"{before[0]!r} would become {after[0]!r}" if before else None


def _unlike(one: _Type, other: _Type) -> str | None:
    """Say why values of one type mean something else in another type, into which they can be cast."""
    if isinstance(one, pl.List | pl.Array) and isinstance(other, pl.List | pl.Array):
        return _unlike(one.inner, other.inner)
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        there = {field.name: field.dtype for field in one.fields}
        found = (_unlike(there[field.name], field.dtype) for field in other.fields if field.name in there)
        return next((reason for reason in found if reason), None)
    if one == pl.Null:
        return None
    if one.is_nested() or other.is_nested():
        return "one is nested, the other is not, or not in the same way"
    if one.is_numeric() and other.is_temporal():
        return "a number is no time"
    if one.is_temporal() and other.is_numeric():
        return "a time is no number"
    zoned = [isinstance(kind, pl.Datetime) and kind.time_zone is not None for kind in (one, other)]
    if one.is_temporal() and other.is_temporal() and zoned[0] != zoned[1]:
        return "one has a time zone, the other has none"
    return None


def _narrowed(dtype: _Type) -> _Type:
    """Return a type with single precision for its floats, and lists for its arrays."""
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_narrowed(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _narrowed(field.dtype) for field in dtype.fields})
    return pl.Float32() if dtype == pl.Float64 else dtype

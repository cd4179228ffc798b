"""The type of a column of JSON values: one that all of its values have, without loss, or none."""

from __future__ import annotations

from typing import Any

import polars as pl

EXACT = 2**53  # integers up to here are exact as 64-bit floats
_WIDEST = 2**63
_DEEPEST = 12

Kind = Any  # a name of _SCALARS, ("list", Kind), ("object", {name: Kind}) or MIXED; nested ones are compared by value
NULL, MIXED, MIXED_NUMBERS = "null", "mixed", "integer or float"
_SCALARS: dict[str, pl.DataType] = {
    NULL: pl.String(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "integer": pl.Int64(),
    "wide integer": pl.Int64(),  # exact as 64-bit integer only
    "float": pl.Float64(),
    MIXED_NUMBERS: pl.Float64(),
}
_WIDENED = {
    frozenset({"integer", "wide integer"}): "wide integer",
    frozenset({"integer", "float"}): MIXED_NUMBERS,
    frozenset({"integer", MIXED_NUMBERS}): MIXED_NUMBERS,
    frozenset({"float", MIXED_NUMBERS}): MIXED_NUMBERS,
}


def kind_of(value: object, depth: int = 0) -> Kind:
    """Return the kind of one value."""
    if value is None:
        return NULL
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -EXACT <= value <= EXACT else "wide integer" if -_WIDEST <= value < _WIDEST else MIXED
    if isinstance(value, float):
        return "float"
    if depth >= _DEEPEST or not value or not isinstance(value, list | dict):
        return ("list", NULL) if value == [] else MIXED  # Parquet has no type for an object without fields
    if isinstance(value, list):
        inner = NULL
        for item in value:
            inner = joined(inner, kind_of(item, depth + 1))
        return MIXED if inner == MIXED else ("list", inner)
    fields = {name: kind_of(item, depth + 1) for name, item in value.items()}
    return MIXED if MIXED in fields.values() else ("object", fields)


def joined(one: Kind, other: Kind) -> Kind:
    """Return the kind that holds values of both without loss, or MIXED."""
    if other in (one, NULL):
        return one
    if one == NULL:
        return other
    if isinstance(one, str) or isinstance(other, str):
        both = frozenset({one, other}) if isinstance(one, str) and isinstance(other, str) else None
        return _WIDENED.get(both, MIXED) if both else MIXED
    if one[0] != other[0]:
        return MIXED
    if one[0] == "list":
        inner = joined(one[1], other[1])
        return MIXED if inner == MIXED else ("list", inner)
    if one[1].keys() != other[1].keys():  # a missing field is not a null
        return MIXED
    fields = {name: joined(kind, other[1][name]) for name, kind in one[1].items()}
    return MIXED if MIXED in fields.values() else ("object", fields)


def mixes_numbers(kind: Kind) -> bool:
    """Return whether values of a kind hold whole numbers and fractions in one place, however deep."""
    if isinstance(kind, str):
        return kind == MIXED_NUMBERS
    return any(map(mixes_numbers, [kind[1]] if kind[0] == "list" else kind[1].values()))


def dtype_of(kind: Kind) -> pl.DataType:
    """Return the column type of a kind other than MIXED."""
    if isinstance(kind, str):
        return _SCALARS[kind]
    if kind[0] == "list":
        return pl.List(dtype_of(kind[1]))
    return pl.Struct({name: dtype_of(inner) for name, inner in kind[1].items()})

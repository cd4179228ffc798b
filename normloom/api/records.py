"""A frame of records in memory: the values of each column are of one type, and none of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from numbers import Integral, Rational, Real
from typing import Any

import polars as pl

from normloom.core.errors import UsageError

_KINDS: tuple[tuple[type, str], ...] = (  # of a type, the first that it belongs to
    (str, "str"),
    (bytes, "bytes"),
    (datetime, "datetime"),
    (date, "date"),
    (time, "time"),
    (timedelta, "timedelta"),
    (Decimal, "Decimal"),
    (Mapping, "dict"),
    (list, "list"),
    (tuple, "list"),
    (range, "list"),
    (Integral, "int"),
)
_BY_NAME = {"bool": "bool", "bool_": "bool", "ndarray": "list", "NaTType": "NaT", "NAType": "NA"}  # numpy's, pandas'
_KNOWN = {*(kind for _, kind in _KINDS), "bool", "float"}
_ALIKE: tuple[set[str], ...] = ({"int", "float"}, {"int", "Decimal"})
_WIDEST = 2**63

Place = tuple[int, Any]  # the number of a record, and a value in it


def frame_of(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return records as a frame with the columns of all of them; None, and a field that is missing, is null.

    Raises UsageError, naming column and record, for values of several types in a column and for a value that no
    column holds unchanged. An int in a column of floats or decimals is one of them, if it is exact as a float.
    """
    names = dict.fromkeys(chain.from_iterable(records))
    if others := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"column {others[0]!r}: a name is text, not {type(others[0]).__name__}")
    overrides = {}
    for name in names:
        places = [(number, record.get(name)) for number, record in enumerate(records)]
        if dtype := _checked(places, name):
            overrides[name] = dtype
    return pl.DataFrame(records, schema_overrides=overrides, infer_schema_length=None)


def _checked(places: Iterable[Place], where: str) -> type[pl.DataType] | None:
    """Check the values of a column, or those in its lists and objects; return the type that Polars would not find."""
    places = [(number, value) for number, value in places if value is not None]
    first: dict[str, Place] = {}
    kinds = {found: _kind(found) for found in {type(value) for _, value in places}}
    for number, value in places if len(kinds) > 1 else places[:1]:
        first.setdefault(kinds[type(value)], (number, value))
    if unknown := [kind for kind in first if kind not in _KNOWN]:
        raise UsageError(
            f"column {where!r} holds a value of type {unknown[0]} (record {first[unknown[0]][0]}): convert it"
        )
    if len(first) > 1 and set(first) not in _ALIKE:
        (one, (at, _)), (other, (later, _)) = list(first.items())[:2]
        raise UsageError(
            f"column {where!r} holds {one} (record {at}) and {other} (record {later}): make all its values of one type"
        )
    if set(first) == _ALIKE[0]:
        _refuse(places, _is_inexact, where, "which is not exact as a float, like others of this column")
    for kind in first:
        _CHECKS.get(kind, _nothing)(places, where)
    wide = "int" in first and len(first) == 1 and any(value >= _WIDEST for _, value in places)
    return pl.UInt64 if wide else pl.Boolean if "bool" in first else None


def _kind(found: type) -> str:
    if found.__name__ in _BY_NAME:
        return _BY_NAME[found.__name__]
    if issubclass(found, Real) and not issubclass(found, Rational):
        return "float"
    return next((kind for known, kind in _KINDS if issubclass(found, known)), found.__name__)


def _in_lists(places: Sequence[Place], where: str) -> None:
    _checked(((number, item) for number, value in places for item in value), f"{where}[]")


def _in_objects(places: Sequence[Place], where: str) -> None:
    for name in dict.fromkeys(name for _, value in places for name in value):
        _checked(((number, value.get(name)) for number, value in places), f"{where}.{name}")


def _integers(places: Sequence[Place], where: str) -> None:
    integers = [(number, int(value)) for number, value in places if isinstance(value, Integral)]
    _refuse(integers, lambda value: not -_WIDEST <= value < 2 * _WIDEST, where, "which takes more than 64 bits")
    if any(value >= _WIDEST for _, value in integers):
        _refuse(integers, lambda value: value < 0, where, "and others that take 64 bits without a sign")


def _decimals(places: Sequence[Place], where: str) -> None:
    _refuse(places, lambda value: isinstance(value, Decimal) and not value.is_finite(), where, "which is no number")


def _datetimes(places: Sequence[Place], where: str) -> None:
    _refuse(places, lambda value: getattr(value, "nanosecond", 0), where, "whose nanoseconds would be lost")
    if any(value.tzinfo for _, value in places):
        _refuse(places, lambda value: value.tzinfo is None, where, "without a time zone, and others with one")


def _nothing(places: Sequence[Place], where: str) -> None:
    """Other values need no check."""


_CHECKS: dict[str, Callable[[Sequence[Place], str], None]] = {
    "list": _in_lists,
    "dict": _in_objects,
    "int": _integers,
    "Decimal": _decimals,
    "datetime": _datetimes,
}


def _is_inexact(value: Any) -> bool:
    try:
        return isinstance(value, Integral) and int(float(value)) != value
    except OverflowError:
        return True


def _refuse(places: Iterable[Place], fault: Callable[[Any], object], where: str, reason: str) -> None:
    for number, value in places:
        if fault(value):
            raise UsageError(f"column {where!r} holds {value!r} (record {number}), {reason}: convert it")

"""Values as they enter a key: equal for equal values, in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral
from pathlib import PurePath
from typing import Any
from uuid import UUID

import polars as pl
from pydantic import BaseModel, RootModel, TypeAdapter

_ANY = TypeAdapter[Any](Any)
_PLAIN = (date, time, timedelta, Decimal, UUID)
_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})  # and none that derives from them


def canonical(value: Any, *, paths: bool = False) -> Any:
    """Return the value as JSON types, equal for equal values whatever their order of keys.

    A path is a value only as a field of a model, or with `paths`. Raises TypeError for a value that cannot enter a key.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    inner = functools.partial(canonical, paths=paths)
    if isinstance(value, BaseModel):
        return _fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        named = {_name(key): item for key, item in value.items()}
        return {name: inner(named[name]) for name in sorted(named)}
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=lambda item: (str(item), repr(item)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [inner(item) for item in value]
    if isinstance(value, Enum):
        return inner(value.value)
    if isinstance(value, pl.DataType) or (isinstance(value, type) and issubclass(value, pl.DataType)):
        return str(value)
    return _leaf(value, paths=paths)


def _leaf(value: Any, *, paths: bool) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, re.Pattern):
        return value.pattern if value.flags == re.UNICODE else [_leaf(value.pattern, paths=paths), value.flags]
    if isinstance(value, bytes):
        return value.decode() if _is_text(value) else {"bytes": value.hex()}
    if isinstance(value, _PLAIN) or (paths and isinstance(value, PurePath)):
        return _ANY.dump_python(value, mode="json")
    if isinstance(value, Integral):  # numpy's
        return int(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot enter a key")


def _fields(model: BaseModel) -> Any:
    """Return the fields of a model by name, those of a subclass of the declared type too."""
    names = [name for name, field in type(model).model_fields.items() if not field.exclude]
    given = {**{name: getattr(model, name) for name in names}, **(model.model_extra or {})}
    if isinstance(model, RootModel):
        return canonical(given["root"], paths=True)
    found = {}
    for name, value in sorted(given.items()):
        try:
            found[name] = canonical(value, paths=True)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
    return found


def _name(key: Any) -> str:
    """Return a key of a mapping as text; 1 and "1" are two."""
    if isinstance(key, Enum):
        return _name(key.value)
    return key if isinstance(key, str) else f"{type(key).__name__} {canonical(key, paths=True)}"


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def digest(value: Any) -> str:
    """Return the digest of a canonical value (20 hex digits)."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()

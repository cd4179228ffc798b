"""One column of an Arrow table, which may be a field of an object, as a Polars series."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True)
class ArrowColumn:
    """Where a column is found, its Arrow type, and the names of the classes that its numbers stand for, if any."""

    top: str
    fields: tuple[str, ...]
    type: Any
    classes: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Return whether the values are text (or all null)."""
        import pyarrow as pa

        kind = self.type.value_type if pa.types.is_dictionary(self.type) else self.type
        tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
        return any(test(kind) for test in tests)

    def read(self, batch: Any) -> pl.Series:
        """Return the values; those of a type that Polars lacks as JSON."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = batch.column(self.top)
        if self.fields:
            values = pc.struct_field(values, list(self.fields))
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_null(values.type):
            return pl.repeat(None, len(values), dtype=pl.String, eager=True)
        try:
            made = pl.from_arrow(values)
        except (pa.ArrowException, ValueError, TypeError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            made = pl.Series([_json(value) for value in values.to_pylist()], dtype=pl.String)
        return made if isinstance(made, pl.Series) else made.to_series()

    def named(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """Return the names of classes (-1 is none) and which rows hold a number without one; else the values."""
        if not self.classes:
            return values, None
        names = {-1: None, **dict(enumerate(self.classes))}
        lists = values.dtype == pl.List
        known = list(names)
        if lists:
            wrong = values.list.eval(pl.element().is_in(known)).list.all().fill_null(value=True)
            element = pl.element().replace_strict(names, default=None, return_dtype=pl.String)
            return values.list.eval(element), ~wrong
        wrong = values.is_not_null() & ~values.is_in(known)
        return values.replace_strict(names, default=None, return_dtype=pl.String), wrong


def column_at(schema: Any, name: str, classes: dict[str, Any]) -> ArrowColumn:
    """Return the column of a name: one of the schema's, or a field of an object that a dotted name leads to."""
    top, *fields = path_of(schema, name)
    kind = schema.field(top).type
    feature: Any = classes.get(top)
    for field in fields:
        kind = kind.field(field).type
        feature = feature.get(field) if isinstance(feature, dict) else None
    return ArrowColumn(top, tuple(fields), kind, _names(feature))


def class_names(path: Path, schema: Any) -> dict[str, Any]:
    """Return the features that Hugging Face's `datasets` wrote into the schema, or into a file next to the table."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return dict(json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"])
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return dict(json.loads((path.parent / "dataset_info.json").read_text(encoding="utf-8"))["features"])
    return {}


def _names(feature: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature.get("names") or ()))
    return _names(feature.get("feature")) if feature.get("_type") in {"Sequence", "List", "LargeList"} else ()


def path_of(schema: Any, name: str) -> tuple[str, ...]:
    """Return the steps to a column, nothing if there is none: its name, or those of an object and of fields in it."""
    import pyarrow as pa

    if name in schema.names:
        return (name,)
    for top in schema.names:
        kind = schema.field(top).type
        if name.startswith(f"{top}.") and pa.types.is_struct(kind):
            inner = pa.schema([kind.field(position) for position in range(kind.num_fields)])
            if rest := path_of(inner, name.removeprefix(f"{top}.")):
                return (top, *rest)
    return ()


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)

"""From records to a table: every record becomes a row or is rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count

import polars as pl

from normloom.core.errors import SourceError
from normloom.core.rows.text import surrogate_problem
from normloom.readers.column import Column
from normloom.readers.kind import MIXED, Kind, mixes_numbers
from normloom.readers.records import Fault, Record, Rejected, Source, none_usable, payload, type_name
from normloom.readers.wanted import MISSING, Wanted, value_of

Numbered = tuple[int, Record]


class Collector:
    """The columns of the records seen so far, and the records rejected."""

    def __init__(self, wanted: Wanted, where: str) -> None:
        self._wanted = wanted
        self._where = where
        self._numbers: list[int] = []
        self._text = Column()
        self._kept: dict[str, Column] = {}
        self._names: dict[str, None] = {}  # every column seen, in order
        self._inside: dict[str, None] = {}  # the names asked for that were found, those within objects too
        self._nested: set[str] = set()  # those that hold a list of objects
        self._rejected: list[Rejected] = []

    def add(self, number: int, record: Record) -> None:
        """Take in one record."""
        content = record.content
        fault = content if isinstance(content, Fault) else self._take(number, content)
        if fault:
            self._rejected.append(Rejected(number, fault.rule, fault.reason, payload(record.raw)))

    def finish(self, found: Iterable[str] = ()) -> Source:
        """Return the table. Raises SourceError if no record can be used or a needed column is nowhere."""
        if not self._numbers and not self._rejected:
            raise SourceError(f"{self._where} has no records: expected at least one")
        if self._names:
            self._names.update(self._inside if self._wanted.keep != "all" else {})
            self._wanted.check(list({**self._names, **self._inside}), where=self._where, hint=self._hint())
        if not self._numbers and len({fault.rule for fault in self._rejected}) == 1:
            column = self._wanted.text_column
            expected = "records" if column is None else f"text in column {column!r}"
            raise none_usable(self._where, [record.entry for record in self._rejected], expected=expected)
        height = len(self._numbers)
        outputs = self._wanted.outputs(self._names)
        columns = {"source_row": pl.Series(self._numbers, dtype=pl.Int64)}
        if self._wanted.text_column is not None:
            columns["text"] = self._text.finish(height)
        for kept, name in outputs.items():
            columns[kept] = self._kept.get(name, Column()).finish(height)
        return Source(
            rows=pl.DataFrame(columns),
            rejected=self._rejected,
            found=(*found, *self._said(outputs)),
            mixed=frozenset(kept for kept, name in outputs.items() if self._kind(name) == MIXED),
        )

    def _take(self, number: int, content: dict[str, object]) -> Fault | None:
        """Add the record's values to the columns, or return why it cannot be used."""
        self._names.update(dict.fromkeys(content))
        column = self._wanted.text_column
        text = None if column is None else self._value(content, column)
        if text is not None and not isinstance(text, str):
            return Fault("not_text", f"column {column!r} holds {type_name(text)}, not text")
        if self._wanted.keep == "all":
            kept = {name: value for name, value in content.items() if name != column}
        else:
            names = dict.fromkeys((*self._wanted.keep, *self._wanted.optional))
            kept = {name: self._value(content, name) for name in names}
        for name, value in ((column or "", text), *kept.items()):
            if reason := _unwritable(name) or _unwritable(value):
                return Fault("lone_surrogate", f"column {payload(name)!r}: {reason}")
        row = len(self._numbers)
        self._numbers.append(number)
        self._text.put(row, text)
        for name, value in kept.items():
            if value is not None:
                self._kept.setdefault(name, Column()).put(row, value)
                if isinstance(value, list) and value and isinstance(value[0], dict):
                    self._nested.add(name)
        return None

    def _value(self, content: dict[str, object], name: str) -> object:
        value = value_of(content, name)
        if value is MISSING:
            return None
        self._inside[name] = None
        return value

    def _hint(self) -> str:
        if len(self._numbers) == 1 and self._nested:
            return f"it is one object; set source.field={min(self._nested)} to read the records in there"
        return ""

    def _kind(self, name: str) -> Kind | None:
        return self._kept[name].kind if name in self._kept else None

    def _said(self, outputs: dict[str, str]) -> list[str]:
        said = [f"column {name!r} kept as {kept!r}" for kept, name in outputs.items() if kept != name]
        for name in outputs.values():
            kind = self._kind(name)
            if kind == MIXED:
                said.append(f"column {name!r} holds values of several types, each kept as JSON")
            elif kind is not None and mixes_numbers(kind):
                said.append(f"column {name!r} mixes whole numbers and fractions, read as fractions (1 as 1.0)")
        return said


def _unwritable(value: object) -> str | None:
    """Say which text in a value cannot be written as UTF-8."""
    if isinstance(value, str):
        return surrogate_problem(value)
    if isinstance(value, list | dict):
        return surrogate_problem(json.dumps(value, ensure_ascii=False, default=str))
    return None


def numbered(records: Iterable[Record]) -> Iterable[Numbered]:
    """Return the records with their numbers, from 1."""
    return zip(count(1), records, strict=False)

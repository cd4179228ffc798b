"""Records on their way from a file to a table."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mode
from typing import Any, NamedTuple

import polars as pl

from normloom.core.errors import SourceError
from normloom.core.rows.text import commonest_first
from normloom.readers.column import as_text

_TRUTH = {"true": "1", "false": "0"}


class Rejected(NamedTuple):
    """A record that cannot be used; `payload` is its text, broken bytes as backslash escapes."""

    source_row: int
    rule: str
    reason: str
    payload: str

    @property
    def entry(self) -> dict[str, str | None]:
        """The record as an entry of the quarantine."""
        reason = f"record {self.source_row}: {self.reason}"
        return {"row_id": None, "rule": self.rule, "reason": reason, "payload": self.payload}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records of a source: `rows` (source_row, text, kept columns), those rejected, and what was found.

    `mixed` are the kept columns with values of several types, which `rows` has as JSON.
    """

    rows: pl.DataFrame
    rejected: list[Rejected] = field(default_factory=list)
    found: tuple[str, ...] = ()
    mixed: frozenset[str] = frozenset()

    @property
    def records(self) -> int:
        """How many records were read."""
        return self.rows.height + len(self.rejected)

    @property
    def entries(self) -> list[dict[str, str | None]]:
        """The rejected records as entries of the quarantine."""
        return [rejected.entry for rejected in self.rejected]

    def text(self, name: str) -> pl.Series:
        """Return a kept column as text: text as it is, lists and objects as JSON, the rest as it is written."""
        column = self.rows[name]
        if name not in self.mixed:
            return as_text(column)
        values = (None if held is None else json.loads(held) for held in column)
        return pl.Series(name, [value if isinstance(value, str) else _json(value) for value in values], dtype=pl.String)

    def names(self, name: str) -> pl.Series:
        """Return a kept column as stripped text, null for a blank: in CSV an empty cell is a missing value."""
        return self.text(name).str.strip_chars().replace("", None)

    def numbers(self, name: str) -> pl.Series:
        """Return a kept column as Float64, numbers written as text too; null for what is no number."""
        column = self.rows[name]
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            return column.cast(pl.Float64)
        return self.text(name).str.strip_chars().str.to_lowercase().replace(_TRUTH).cast(pl.Float64, strict=False)

    def lists(self, name: str) -> pl.Series:
        """Return a kept column as lists of texts: a list, also one written as JSON, or the only item of one."""
        return pl.Series(name, [_items(value) for value in self.text(name)], dtype=pl.List(pl.String))


def none_usable(
    where: str, entries: Sequence[Mapping[str, Any]], *, noun: str = "record", expected: str = ""
) -> SourceError:
    """Return the error for a source of which nothing can be used, with the commonest reason first.

    `entries` are those of the quarantine (rule, reason), `noun` is what one of them is about.
    """
    hint = f": expected {expected}" if expected else ""
    if not entries:
        return SourceError(f"{where} has no {noun}s{hint}")
    rules = [entry["rule"] for entry in entries]
    first = entries[rules.index(mode(rules))]["reason"]
    what = f"its only {noun} cannot" if len(entries) == 1 else f"none of its {len(entries):,} {noun}s can"
    return SourceError(f"{where}: {what} be used ({commonest_first(rules)}; {first}){hint}")


class Fault(NamedTuple):
    """Why a record cannot be used."""

    rule: str
    reason: str


class Record(NamedTuple):
    """A record's values by column, or what is wrong with it; `raw` is what stood in the file."""

    content: dict[str, object] | Fault
    raw: object


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _items(text: str | None) -> list[str] | None:
    if not text:
        return None
    value: object = text
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(text)
    if not isinstance(value, list):
        return [text]
    return [
        item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in value if item is not None
    ]


def payload(raw: object) -> str:
    """Return what stood in the file as text that a table can hold."""
    if isinstance(raw, bytes):
        return raw.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    text = raw.rstrip("\r\n") if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """Return an error's message on one line of bounded length."""
    return " ".join(str(error).split())[:200]


def type_name(value: object) -> str:
    """Return what a JSON value is called in a message."""
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")

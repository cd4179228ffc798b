"""Records on their way from a file to a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl


class Rejected(NamedTuple):
    """A record that cannot be used; `payload` is its text, broken bytes as backslash escapes."""

    source_row: int
    rule: str
    reason: str
    payload: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records of a source: `rows` (source_row, text, kept columns), those rejected, and what was found."""

    rows: pl.DataFrame
    rejected: list[Rejected] = field(default_factory=list)
    found: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        """How many records were read."""
        return self.rows.height + len(self.rejected)


class Fault(NamedTuple):
    """Why a record cannot be used."""

    rule: str
    reason: str


class Record(NamedTuple):
    """A record's values by column, or what is wrong with it; `raw` is what stood in the file."""

    content: dict[str, object] | Fault
    raw: object


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

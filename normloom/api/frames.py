"""Any data as the source of a flow: frames, Arrow tables, Hugging Face data sets, records, files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, PrivateAttr

from normloom.api.records import frame_of
from normloom.api.written import lines, require_times
from normloom.core.contract import RESERVED, Contract, unstorable
from normloom.core.errors import SourceError, UsageError, cause
from normloom.core.stage import Output, Stage, quarantined_frame
from normloom.readers import LIBRARIES, READERS, Located, ReadOptions, locate, read_source
from normloom.settings.config import checked
from normloom.steps.step import step

PREFIX = "source_"
log = logging.getLogger(READERS)


class Frame(BaseModel):
    """A frame in memory; its key is the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    _rows: list[pl.DataFrame] = PrivateAttr(default_factory=list)

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Frame:
        """Return the frame with its digest: names, types and values, in order."""
        hashed = hashlib.blake2b(repr(rows.schema).encode(), digest_size=16)
        for line in lines(rows):
            hashed.update(line.encode())
        made = cls(digest=hashed.hexdigest())
        made._rows.append(rows)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def rows(self) -> pl.DataFrame:
        """The rows."""
        return self._rows[0]


def table(data: Any, *, name: str = "table", quarantine_budget: float | None = None, **reading: Any) -> Stage:
    """Return the source that holds the data: one row for each of its rows.

    `data` is a Polars or pandas frame (a named index is a column), an Arrow table, a Hugging Face data set, an
    iterable of dicts whose values are of one type in each column, or the path of a file, folder, pattern or URL
    (docs/sources.md lists the formats; records that cannot be read are quarantined, up to the share
    `quarantine_budget`, overriding the build's). A path may be read with the settings of a source: `delimiter`,
    `encoding`, `field`, `subset`, `split`, `limit`, `sample`, `seed`. The names row_id, parents, content and
    through are reserved: a file's columns of these names get the prefix `source_`.
    Raises UsageError for data that is not a table, for a frame with a reserved name and for unknown settings.
    """
    if isinstance(data, str | os.PathLike):
        stage = _file(source=locate(os.fspath(data), checked(ReadOptions, reading, prefix="")), name=name)
        return replace(stage, quarantine_budget=quarantine_budget)
    if reading:
        raise UsageError(f"table {name!r}: {next(iter(reading))} applies to files, not to {type(data).__name__}")
    rows = _frame(data, name)
    if taken := [column for column in rows.columns if column in RESERVED]:
        raise UsageError(f"table {name!r}: column {taken[0]!r} is a name reserved by Normloom: rename it")
    return _memory(frame=Frame.of(rows), name=name)


@step(makes=lambda given: _any_of(given["frame"].rows.schema))
def _memory(*, frame: Frame) -> Output:
    return _known(frame.rows)


@step(makes=Contract(columns={"source_row": pl.Int64()}, extra=True), libraries=LIBRARIES)
def _file(*, source: Located) -> Output:
    read = read_source(source, text_column=None, keep="all")
    try:
        require_times(read.rows)
    except UsageError as error:
        raise SourceError(f"{source.name}: {error}") from error
    known = _known(_renamed(read.rows.drop("source_row"), source.name)).rows.with_columns(read.rows["source_row"])
    return Output(rows=known, quarantined=quarantined_frame(read.entries), attempts=read.records)


def _renamed(rows: pl.DataFrame, source: str) -> pl.DataFrame:
    """Give columns with reserved names a prefix, as often as makes them unique, and log it."""
    for name in [name for name in rows.columns if name in RESERVED]:
        new = PREFIX + name
        while new in rows.columns:
            new = PREFIX + new
        log.info("%s: column %r is kept as %r: its name is reserved by Normloom", source, name, new)
        rows = rows.rename({name: new})
    return rows


def _any_of(schema: Mapping[str, pl.DataType]) -> Contract:
    return Contract(columns=dict(schema), nullable=frozenset(schema))


def _known(rows: pl.DataFrame) -> Output:
    """Return rows without parents, each identified by the digest of its content."""
    told = pl.Series("content", [_digest(line) for line in lines(rows)], dtype=pl.String)
    return Output(rows=rows.with_columns(told, parents=pl.lit([], dtype=pl.List(pl.String))), attempts=rows.height)


def _digest(line: str) -> str:
    return hashlib.blake2b(line.encode(), digest_size=16).hexdigest()


def _frame(data: Any, name: str) -> pl.DataFrame:
    """Return data in memory as a frame of columns that a table can hold."""
    try:
        rows = _read(data)
        require_times(rows)
    except UsageError as error:
        raise UsageError(f"table {name!r}: {error}") from error
    except Exception as error:
        told = cause(error)
        raise UsageError(f"table {name!r} cannot be made of {type(data).__name__}: {told}") from error
    for column, kind in rows.schema.items():
        if reason := unstorable(kind):
            raise UsageError(f"table {name!r}: column {column!r} holds {reason}")
    return rows


def _read(data: Any) -> pl.DataFrame:
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if hasattr(data, "with_format") and hasattr(data, "data"):  # a Hugging Face data set
        data = data.with_format("arrow")[:]
    if hasattr(data, "reset_index") and any(name is not None for name in data.index.names):  # of pandas: a column
        data = data.reset_index()
    if hasattr(data, "__dataframe__") or hasattr(data, "__arrow_c_stream__"):  # pandas, Arrow and their like
        return pl.DataFrame(data)
    expected = "a table is a frame, an iterable of dicts or a path"
    if isinstance(data, Mapping | bytes) or not isinstance(data, Iterable):
        raise UsageError(f"{expected}, not {type(data).__name__}")
    rows = list(data)
    if others := [row for row in rows if not isinstance(row, Mapping)]:
        raise UsageError(f"{expected}, not {type(data).__name__} of {type(others[0]).__name__}")
    return frame_of(rows)

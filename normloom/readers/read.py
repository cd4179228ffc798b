"""Reading a source: from its files to one table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from normloom.core.errors import SourceError
from normloom.readers.choose import chosen
from normloom.readers.collect import Collector, numbered
from normloom.readers.formats.arrow import read_arrow
from normloom.readers.formats.delimited import Delimited
from normloom.readers.formats.encoding import UTF8, encoding_of
from normloom.readers.formats.header import Headers
from normloom.readers.formats.json_lines import json_file, json_lines, text_lines
from normloom.readers.formats.sheet import sheet_records
from normloom.readers.locate import Located, locate
from normloom.readers.opening import BROKEN, open_text
from normloom.readers.options import ReadOptions
from normloom.readers.records import Record, Source, one_line
from normloom.readers.wanted import Keep, Wanted

READERS = "normloom.readers"  # the logger for what was found
log = logging.getLogger(READERS)

ARROW = frozenset({"parquet", "arrow"})
TEXT = "text"  # the column of lines of text if they are not asked for under another name
_SEEN = 100  # records that tell which columns there are


def column_names(source: Located) -> list[str]:
    """Return the columns of a source as far as its first records show them; none if they cannot be read."""
    reading = source.reading.model_copy(update={"limit": min(source.reading.limit or _SEEN, _SEEN), "sample": None})
    try:
        seen = _read(source.model_copy(update={"reading": reading}), Wanted(text_column=None, keep="all"))
    except SourceError:  # reading it all will say why
        return []
    return seen.rows.columns[1:]


def holding(source: Located, columns: Sequence[str]) -> Located:
    """Return a source that has all these columns; raises SourceError otherwise, before anything is built."""
    if not set(columns) <= set(column_names(source)):
        read_source(source, text_column=None, keep=columns)  # they may come later in the file
    return source


def read_source(
    source: Located | str | Path,
    *,
    text_column: str | None,
    keep: Keep = (),
    optional: Sequence[str] = (),
    limit: int | None = None,
) -> Source:
    """Return the records of a source; what is not `Located` yet is located first.

    `rows` has `source_row` (Int64, the number of the record from 1; blank lines are none), `text` (null if the record
    has no value; left out without a `text_column`) and the columns of `keep` ("all": every other column) with their own
    types, then those of `optional` that are there. A dotted name leads into objects (`meta.focus`) unless a column has
    that very name. Raises SourceError for a file that cannot be read, lacks a needed column or has no record that can
    be used.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"{source}: a limit of {limit} records leaves nothing to read: use 1 or more")
    located = source if isinstance(source, Located) else locate(source, ReadOptions(limit=limit))
    keep = keep if keep == "all" else tuple(dict.fromkeys(keep))
    try:
        wanted = Wanted(text_column=text_column, keep=keep, optional=tuple(dict.fromkeys(optional)))
    except SourceError as error:
        raise SourceError(f"{located.name}: {error}") from None
    return _said(located, _read(located, wanted))


def _read(located: Located, wanted: Wanted) -> Source:
    if located.format in ARROW:
        return read_arrow(located, wanted)
    headers = Headers(wanted, [])
    collector = Collector(wanted, located.name)
    records = (record for path in located.files for record in _guarded(path, located, headers))
    for number, record in chosen(numbered(records), located.reading):
        collector.add(number, record)
    return collector.finish(headers.found)


def _said(located: Located, source: Source) -> Source:
    """Tell the log what was found."""
    files = f"{len(located.files)} files, " if len(located.files) > 1 else ""
    rejected = f", {len(source.rejected)} rejected" if source.rejected else ""
    found = (*source.found, *_repeats(source.rows))
    if found or files or rejected:
        log.info("%s: %s", located.name, "; ".join((f"{files}{source.records} records{rejected}", *found)))
    return replace(source, found=found)


def _repeats(rows: pl.DataFrame) -> Iterator[str]:
    """Say that ids are no ids."""
    if "id" in rows.columns and (rows.schema["id"] == pl.String or rows.schema["id"].is_integer()):
        ids = rows["id"].drop_nulls()
        if repeated := ids.len() - ids.n_unique():
            yield f"column 'id' repeats values in {repeated} records"


def _guarded(path: Path, located: Located, headers: Headers) -> Iterator[Record]:
    with open_text(path) as stream:
        try:
            if not stream.read(1):
                raise SourceError(f"{path} is empty: expected at least one record")
        except BROKEN as error:
            raise _broken(path, error) from error
    try:
        yield from _records(path, located, headers)
    except BROKEN as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} cannot be read ({one_line(error)}): check the file and its disk")


def _records(path: Path, located: Located, headers: Headers) -> Iterator[Record]:
    if located.format == "xlsx":
        return sheet_records(path, headers)
    encoding = located.reading.encoding or encoding_of(path)
    if encoding != UTF8 and not located.reading.encoding:
        headers.found.append(f"{path.name} is not UTF-8, read as {encoding}; set source.encoding if that is wrong")
    match located.format:
        case "csv" | "tsv":
            delimiter = located.reading.delimiter
            return Delimited(
                path=path, form=located.format, encoding=encoding, headers=headers, delimiter=delimiter
            ).records()
        case "jsonl":
            return json_lines(path, encoding)
        case "json":
            return json_file(path, encoding, located.reading.field)
    return text_lines(path, encoding, headers.wanted.text_column or TEXT)

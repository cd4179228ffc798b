"""Reading a source: from its files to one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from normloom.errors import SourceError
from normloom.readers.arrow import read_arrow
from normloom.readers.choose import chosen
from normloom.readers.collect import Collector, numbered
from normloom.readers.delimited import Delimited
from normloom.readers.encoding import UTF8, encoding_of
from normloom.readers.json_lines import json_file, json_lines, text_lines
from normloom.readers.locate import Located, locate
from normloom.readers.opening import BROKEN, open_text
from normloom.readers.options import Reading
from normloom.readers.records import Record, Source, one_line
from normloom.readers.sheet import Sheet
from normloom.readers.wanted import Keep, Wanted

ARROW = frozenset({"parquet", "arrow"})


def read_source(
    source: Located | str | Path,
    *,
    text_column: str,
    keep: Keep = (),
    optional: Sequence[str] = (),
    limit: int | None = None,
) -> Source:
    """Return the records of a source; what is not `Located` yet is located first.

    `rows` has `source_row` (Int64, the number of the record from 1; blank lines are none), `text` (null if the record
    has no value) and the columns of `keep` ("all": every other column) with their own types, then those of `optional`
    that are there. A dotted name leads into objects (`meta.focus`) unless a column has that very name. Raises
    SourceError for a file that cannot be read, lacks a needed column or has no record that can be used.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"{source}: a limit of {limit} records leaves nothing to read: use 1 or more")
    located = source if isinstance(source, Located) else locate(source, Reading(limit=limit))
    keep = keep if keep == "all" else tuple(dict.fromkeys(keep))
    try:
        wanted = Wanted(text_column=text_column, keep=keep, optional=tuple(dict.fromkeys(optional)))
    except SourceError as error:
        raise SourceError(f"{located.name}: {error}") from None
    if located.format in ARROW:
        return read_arrow(located, wanted)
    found: list[str] = []
    collector = Collector(wanted, located.name)
    records = (record for path in located.files for record in _records(path, located, wanted, found))
    for number, record in chosen(numbered(records), located.reading):
        collector.add(number, record)
    return collector.finish(found)


def _records(path: Path, located: Located, wanted: Wanted, found: list[str]) -> Iterator[Record]:
    try:
        yield from _records_of(path, located, wanted, found)
    except BROKEN as error:
        raise SourceError(f"{path} cannot be read ({one_line(error)}): check the file and its disk") from error


def _records_of(path: Path, located: Located, wanted: Wanted, found: list[str]) -> Iterator[Record]:
    with open_text(path) as stream:
        if not stream.read(1):
            raise SourceError(f"{path} is empty: expected at least one record")
    if located.format == "xlsx":
        sheet = Sheet(path=path, wanted=wanted)
        yield from sheet.records()
        found += sheet.found
        return
    encoding = located.reading.encoding or encoding_of(path)
    if encoding != UTF8 and not located.reading.encoding:
        found.append(f"{path.name} is not UTF-8, read as {encoding}; set source.encoding if that is wrong")
    match located.format:
        case "csv" | "tsv":
            delimited = Delimited(
                path=path,
                form=located.format,
                encoding=encoding,
                wanted=wanted,
                delimiter=located.reading.delimiter,
            )
            yield from delimited.records()
            found += delimited.found
        case "jsonl":
            yield from json_lines(path, encoding)
        case "json":
            yield from json_file(path, encoding, located.reading.field)
        case "txt":
            yield from text_lines(path, encoding, wanted.text_column)

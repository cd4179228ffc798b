"""JSON lines (one object a line), and text files (one text a line). Blank lines are no records."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from normloom.readers.formats.encoding import Line, lines
from normloom.readers.formats.json_stream import array_records
from normloom.readers.formats.json_values import DECODER, as_object
from normloom.readers.opening import open_text
from normloom.readers.records import Fault, Record, one_line


def json_lines(path: Path, encoding: str) -> Iterator[Record]:
    """Yield the record of each line."""
    return (Record(_parsed(line, encoding), line.raw) for line in lines(path, encoding) if line.text.strip())


def json_file(path: Path, encoding: str, field: str | None) -> Iterator[Record]:
    """Yield the records of a `.json` file: those of an array, or of each line if the first one is an object."""
    if field is None and not _begins_as_array(path):
        first = next((line for line in lines(path, encoding) if line.text.strip()), None)
        if first and isinstance(_parsed(first, encoding), dict):
            return json_lines(path, encoding)
    return array_records(path, encoding, field)


def _begins_as_array(path: Path) -> bool:
    with open_text(path) as stream:
        return stream.read(1 << 16).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def text_lines(path: Path, encoding: str, column: str) -> Iterator[Record]:
    """Yield a record with one column for each line."""
    for line in lines(path, encoding):
        if line.text.strip():
            yield Record(line.fault(encoding) or {column: line.text.rstrip("\r\n")}, line.raw)


def _parsed(line: Line, encoding: str) -> dict[str, object] | Fault:
    if fault := line.fault(encoding):
        return fault
    try:
        return as_object(DECODER.decode(line.text))
    except (ValueError, RecursionError) as error:
        return Fault("broken_json", one_line(error))

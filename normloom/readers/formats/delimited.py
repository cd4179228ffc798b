"""CSV and TSV: one record a line, or several lines if a quoted field spans them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from normloom.core.errors import SourceError
from normloom.readers.formats.encoding import Line, lines
from normloom.readers.formats.header import Header, Headers
from normloom.readers.records import Fault, Record

_DELIMITERS = {"csv": ",;\t|", "tsv": "\t,;|"}
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SAMPLE = 50  # lines that the delimiter is judged by
_LONGEST = 2**31 - 1


@dataclass(kw_only=True)
class Delimited:
    """The records of one file."""

    path: Path
    form: str
    encoding: str
    headers: Headers
    delimiter: str | None = None

    def records(self) -> Iterator[Record]:
        """Yield the records; raises SourceError for a header that cannot be read and a quote that is never closed."""
        csv.field_size_limit(_LONGEST)
        source = lines(self.path, self.encoding)
        first = list(islice(source, _SAMPLE))
        delimiter = self.delimiter or self._delimiter([line.text for line in first])
        if delimiter != _DELIMITERS[self.form][0]:
            self.headers.found.append(f"fields separated by {_NAMES.get(delimiter, repr(delimiter))}")
        consumed: list[Line] = []  # the lines of the record at hand, so that none is lost with it
        reader = csv.reader(_texts(chain(first, source), consumed), delimiter=delimiter, strict=True)
        header: Header | None = None
        while True:
            consumed.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(error, consumed, reader.line_num, header=bool(header))
                continue
            if not fields:
                continue
            raw = b"".join(line.raw for line in consumed)
            fault = Line("".join(line.text for line in consumed), raw).fault(self.encoding)
            if header:
                self._suspect(consumed, len(header.names), delimiter, reader.line_num)
                yield Record(fault or _count_fault(header.names, fields) or header.content(fields), raw)
            elif fault:
                raise SourceError(
                    f"{self.path}: the header is not {self.encoding.upper()}: set source.encoding, or save it as UTF-8"
                )
            else:
                header = self.headers.take(fields, self.path)

    def _delimiter(self, sample: Sequence[str]) -> str:
        """Return the delimiter under which the header has the needed columns, else the most columns.

        Columns count if most records have as many, so that a bar in a header of one column does not cut it.
        """
        rows = {delimiter: list(_split(sample, delimiter)) for delimiter in _DELIMITERS[self.form]}
        needed = set(self.headers.wanted.needed)
        fits = [delimiter for delimiter, found in rows.items() if needed and found and needed <= set(found[0])]
        return fits[0] if fits else max(rows, key=lambda delimiter: _columns(rows[delimiter]))

    def _broken(self, error: csv.Error, consumed: Sequence[Line], last: int, *, header: bool) -> Record:
        first = last - len(consumed) + 1
        if not header or (len(consumed) > 1 and "unexpected end" in str(error)):
            raise SourceError(
                f"{self.path}: the record at line {first} is broken ({error}): close or double its quotes"
            ) from error
        span = f"line {first}" if len(consumed) == 1 else f"lines {first} to {last}"
        return Record(Fault("broken_csv", f"{span}: {error}"), b"".join(line.raw for line in consumed))

    def _suspect(self, consumed: Sequence[Line], width: int, delimiter: str, last: int) -> None:
        """Say that a quoted field may have swallowed records: each line inside it looks like one."""
        inner = [line.text for line in consumed[1:-1]]
        if width > 1 and inner and all(line.count(delimiter) == width - 1 for line in inner):
            first = last - len(consumed) + 1
            self.headers.found.append(f"lines {first} to {last} are one record but look like several: check the quotes")


def _split(sample: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the records of a sample up to one that is broken."""
    with suppress(csv.Error):
        yield from filter(None, csv.reader(sample, delimiter=delimiter))


def _columns(rows: Sequence[Sequence[str]]) -> int:
    if not rows:
        return 0
    alike = sum(len(row) == len(rows[0]) for row in rows[1:])
    return len(rows[0]) if 2 * alike >= len(rows) - 1 else 1


def _texts(source: Iterator[Line] | chain[Line], consumed: list[Line]) -> Iterator[str]:
    for line in source:
        consumed.append(line)
        yield line.text


def _count_fault(header: Sequence[str], fields: Sequence[str]) -> Fault | None:
    if len(fields) == len(header):
        return None
    return Fault("field_count", f"the record has {len(fields)} fields; the header has {len(header)}")

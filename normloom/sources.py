"""Reading a user's input file.

A file is read whole or refused with a `SourceError`; a record that cannot be used is put aside with
rule, reason and payload. Whether a text is fit for use is for `normloom.text` to say.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from normloom.errors import SourceError
from normloom.text import surrogate_problem

if TYPE_CHECKING:
    from pathlib import Path

_MAX_LISTED = 20  # columns named in an error
_MAX_FIELD = 2**31 - 1


class Rejected(NamedTuple):
    """A record that cannot be used; `payload` is its bytes as UTF-8, broken bytes as backslash escapes."""

    source_row: int
    rule: str
    reason: str
    payload: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The records of a file: `rows` (source_row, text, kept columns) and those put aside."""

    rows: pl.DataFrame
    rejected: list[Rejected] = field(default_factory=list)


class _Fault(NamedTuple):
    rule: str
    reason: str


class _Record(NamedTuple):
    content: dict[str, object] | _Fault
    raw: bytes


@dataclass(frozen=True, kw_only=True)
class _Request:
    path: Path
    text_column: str
    keep: tuple[str, ...]
    optional: tuple[str, ...]
    limit: int | None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.text_column, *self.keep, *self.optional)

    def settled(self, existing: Iterable[str]) -> _Request:
        """Return the request of a file with these columns, without the optional ones it lacks; or raise SourceError."""
        names = list(existing)
        for column in (self.text_column, *self.keep):
            if column not in names:
                raise SourceError(f"{self.path} has no column {column!r}: {_columns_hint(column, names)}")
        for column in self.columns:
            if names.count(column) > 1:
                raise SourceError(f"{self.path} has {names.count(column)} columns named {column!r}: rename all but one")
        return replace(self, optional=tuple(column for column in self.optional if column in names))


def read_source(
    path: Path, *, text_column: str, keep: Sequence[str] = (), optional: Sequence[str] = (), limit: int | None = None
) -> Source:
    """Return the first `limit` records of a CSV, TSV, JSONL, JSON or Parquet file (told by its suffix).

    `rows` has `source_row` (number of the record, from 1; blank lines are none), `text` (null where the
    record has no value), the columns of `keep` and those of `optional` that the file has, as text. Raises SourceError.
    """
    request = _Request(
        path=path,
        text_column=text_column,
        keep=tuple(dict.fromkeys(keep)),
        optional=tuple(name for name in dict.fromkeys(optional) if name not in {text_column, *keep}),
        limit=limit,
    )
    if taken := {"source_row", "text"}.intersection((*keep, *optional)):
        raise SourceError(
            f"{path}: a column named {taken.pop()!r} cannot be kept beside the text: rename it in the file"
        )
    if limit is not None and limit < 1:
        raise SourceError(f"{path}: a limit of {limit} records leaves nothing to read: use 1 or more")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(f"{path} has the suffix {path.suffix!r}: expected one of {', '.join(_READERS)}")
    with _open(path) as stream:
        if not stream.read(1):
            raise SourceError(f"{path} is empty: expected at least one record")
        stream.seek(0)
        try:
            return reader(request, stream)
        except OSError as error:
            raise SourceError(f"{path} cannot be read ({_one_line(error)}): check the file and its disk") from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes (64 hex digits). Raises SourceError."""
    with _open(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open(path: Path) -> io.BufferedReader:
    if path.is_dir():
        raise SourceError(f"{path} is a directory: name one file in it")
    try:
        if path.exists() and not path.is_file():
            raise SourceError(f"{path} is not a regular file: copy what it gives into one")
        return path.open("rb")
    except FileNotFoundError as error:
        raise SourceError(f"{path} does not exist: check the name and the working directory") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user: change its permissions") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be opened ({_one_line(error)}): check the name and the disk") from error


def _read_delimited(request: _Request, stream: io.BufferedReader) -> Source:
    delimiter = "\t" if request.path.suffix.lower() == ".tsv" else ","
    return _collect(request, _delimited_records(request, stream, delimiter))


def _delimited_records(request: _Request, stream: io.BufferedReader, delimiter: str) -> Iterator[_Record]:
    _refuse_utf16(request, stream)
    _skip_mark(stream)
    consumed: list[bytes] = []  # the lines of the record at hand, so that none is lost with it

    def lines() -> Iterator[str]:
        for line in stream:
            consumed.append(line)
            yield line.decode("utf-8", "surrogateescape")

    csv.field_size_limit(_MAX_FIELD)  # how long a text may be is not for the reader to say
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        consumed.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first = reader.line_num - len(consumed) + 1
            if not header or (len(consumed) > 1 and "unexpected end" in str(error)):
                raise SourceError(
                    f"{request.path}: the record at line {first} is broken ({error}): close or double its quotes"
                ) from error
            span = f"line {first}" if len(consumed) == 1 else f"lines {first} to {reader.line_num}"
            yield _Record(_Fault("broken_csv", f"{span}: {error}"), b"".join(consumed))
            continue
        if not fields:
            continue
        raw = b"".join(consumed)
        fault = _utf8_fault(raw)
        if header:
            yield _Record(fault or _fields_fault(header, fields) or dict(zip(header, fields, strict=True)), raw)
            continue
        if fault:
            raise SourceError(f"{request.path}: the header is not UTF-8: save the file as UTF-8")
        header = fields
        request.settled(header)


def _fields_fault(header: Sequence[str], fields: Sequence[str]) -> _Fault | None:
    if len(fields) == len(header):
        return None
    return _Fault("field_count", f"the record has {len(fields)} fields; the header has {len(header)}")


def _utf8_fault(raw: bytes) -> _Fault | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return _Fault("broken_utf8", f"byte 0x{raw[error.start]:02X} at position {error.start + 1} is not UTF-8")
    return None


def _refuse_utf16(request: _Request, stream: io.BufferedReader) -> None:
    if stream.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SourceError(f"{request.path} is UTF-16 or UTF-32: save it as UTF-8")


def _skip_mark(stream: io.BufferedReader) -> None:
    if stream.peek(3).startswith(codecs.BOM_UTF8):
        stream.read(3)


def _read_json_lines(request: _Request, stream: io.BufferedReader) -> Source:
    _refuse_utf16(request, stream)
    _skip_mark(stream)
    return _collect(request, (_Record(_parse_line(line), line) for line in stream if line.strip()))


def _parse_line(line: bytes) -> dict[str, object] | _Fault:
    if fault := _utf8_fault(line):
        return fault
    try:
        return _as_object(json.loads(line))
    except (ValueError, RecursionError) as error:
        return _Fault("broken_json", _one_line(error))


def _as_object(value: Any) -> dict[str, object] | _Fault:
    if isinstance(value, dict):
        return value
    return _Fault("not_object", f"expected a JSON object, found {_type_name(value)}")


def _read_json_array(request: _Request, stream: io.BufferedReader) -> Source:
    try:
        content = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{request.path} is not one JSON array in UTF-8 ({_one_line(error)}): "
            "mend it, or name the file .jsonl where each line is an object"
        ) from error
    if not isinstance(content, list):
        raise SourceError(f"{request.path} holds {_type_name(content)}: expected a JSON array of objects")
    return _collect(request, (_Record(_as_object(item), json.dumps(item).encode()) for item in content))


def _collect(request: _Request, records: Iterator[_Record]) -> Source:
    seen: dict[str, None] = {}
    taken: list[tuple[int, list[str | None]]] = []
    rejected: list[Rejected] = []
    for number, (content, raw) in enumerate(islice(records, request.limit), start=1):
        values = content if isinstance(content, _Fault) else _values(request, content)
        if not isinstance(content, _Fault):
            seen.update(dict.fromkeys(content))
        if isinstance(values, _Fault):
            payload = raw.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            rejected.append(Rejected(number, values.rule, values.reason, payload))
        else:
            taken.append((number, values))
    if not taken and not rejected:
        raise SourceError(f"{request.path} has no records: expected at least one")
    settled = request.settled(seen) if seen else request
    if not taken and len({fault.rule for fault in rejected}) == 1:
        first = rejected[0]
        raise SourceError(
            f"{request.path}: none of {len(rejected)} records can be used ({first.rule}: record {first.source_row}, "
            f"{first.reason}): expected text in column {request.text_column!r} of {request.path.suffix} records"
        )
    columns: dict[str, Any] = {"source_row": pl.Series([number for number, _ in taken], dtype=pl.Int64)}
    for place, name in enumerate(request.columns):
        if name in settled.columns:
            cells = [values[place] for _, values in taken]
            columns["text" if place == 0 else name] = pl.Series(cells, dtype=pl.String)
    return Source(rows=pl.DataFrame(columns), rejected=rejected)


def _values(request: _Request, content: dict[str, object]) -> list[str | None] | _Fault:
    text = content.get(request.text_column)
    if text is not None and not isinstance(text, str):
        return _Fault("not_text", f"column {request.text_column!r} holds {_type_name(text)}, not text")
    values = [text, *(_as_text(content.get(name)) for name in request.columns[1:])]
    for name, value in zip(request.columns, values, strict=True):
        if value is not None and (reason := surrogate_problem(value)):
            return _Fault("lone_surrogate", f"column {name!r}: {reason}")
    return values


def _read_parquet(request: _Request, stream: io.BufferedReader) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
        schema = file.schema_arrow
        request = request.settled(schema.names)
        kind = schema.field(request.text_column).type
        texts = {pa.string(), pa.large_string(), pa.null()}
        if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in texts:
            raise SourceError(f"{request.path}: column {request.text_column!r} holds {kind}: expected text")
        table = _first_rows(file, request)
        table.validate(full=True)  # Arrow takes strings on trust; a broken one must not get further
        # Column by column: Polars panics on field metadata that is not UTF-8
        frame = pl.DataFrame({name: pl.from_arrow(table.column(name)) for name in request.columns})
    except (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"{request.path} is damaged, cut short or no Parquet file ({_one_line(error)}): write or fetch it again"
        ) from error
    if not frame.height:
        raise SourceError(f"{request.path} has no records: expected at least one")
    kept = [pl.Series(name, map(_as_text, frame[name]), dtype=pl.String) for name in request.columns[1:]]
    text = frame[request.text_column].cast(pl.String).alias("text")
    return Source(
        rows=pl.DataFrame([text, *kept]).with_row_index("source_row", offset=1).cast({"source_row": pl.Int64})
    )


def _first_rows(file: Any, request: _Request) -> Any:
    if request.limit is None:
        return file.read(columns=list(dict.fromkeys(request.columns)))
    import pyarrow as pa

    batches, rows = [], 0
    for batch in file.iter_batches(batch_size=min(request.limit, 65_536), columns=list(dict.fromkeys(request.columns))):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= request.limit:
            break
    return pa.Table.from_batches(batches, None if batches else file.schema_arrow).slice(0, request.limit)


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return json.dumps(value.to_list(), ensure_ascii=False, default=str) if isinstance(value, pl.Series) else str(value)


def _columns_hint(wanted: str, existing: Sequence[str]) -> str:
    listed = ", ".join(map(repr, existing[:_MAX_LISTED])) or "none"
    more = f" and {len(existing) - _MAX_LISTED} more" if len(existing) > _MAX_LISTED else ""
    by_folded = {name.strip().casefold(): name for name in reversed(existing)}
    close = difflib.get_close_matches(wanted.strip().casefold(), by_folded, n=1)
    hint = f"did you mean {by_folded[close[0]]!r}?" if close else "name one of these"
    return f"its columns are {listed}{more}; {hint}"


def _type_name(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}
    return "null" if value is None else names[type(value)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


_Reader = Callable[[_Request, io.BufferedReader], Source]
_READERS: dict[str, _Reader] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_array,
    ".parquet": _read_parquet,
}

"""Parquet files, Arrow files and data sets that Hugging Face's `datasets` saved: tables with types of their own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from normloom.core.contract import unstorable
from normloom.core.errors import SourceError
from normloom.readers.choose import chosen_numbers
from normloom.readers.formats.arrow_column import class_names, column_at, path_of
from normloom.readers.join_shards import joined
from normloom.readers.locate import Located
from normloom.readers.opening import open_raw
from normloom.readers.records import Rejected, Source, none_usable, one_line, payload
from normloom.readers.wanted import Wanted

_BATCH = 65_536


@dataclass(frozen=True)
class _File:
    """One file: its schema, how many records it has, and a reader of its batches."""

    path: Path
    schema: Any
    records: int
    batches: Any  # called with the columns that are needed


class _Columns:
    """The columns that are read of one file."""

    def __init__(self, file: _File, wanted: Wanted) -> None:
        names = class_names(file.path, file.schema)
        inside = [name for name in wanted.optional if len(path_of(file.schema, name)) > 1]
        self.outputs = wanted.outputs([*file.schema.names, *(inside if wanted.keep != "all" else ())])
        self.text = None if wanted.text_column is None else column_at(file.schema, wanted.text_column, names)
        self.kept = {kept: column_at(file.schema, name, names) for kept, name in self.outputs.items()}
        if self.text and not self.text.is_text:
            raise SourceError(f"{file.path}: column {wanted.text_column!r} holds {self.text.type}: expected text")

    @property
    def needed(self) -> list[str]:
        """The top-level columns of the file that hold them."""
        columns = [*([self.text] if self.text else []), *self.kept.values()]
        return list(dict.fromkeys(column.top for column in columns))

    def said(self) -> Iterator[str]:
        """Yield what changes on the way in."""
        for kept, name in self.outputs.items():
            if kept != name:
                yield f"column {name!r} kept as {kept!r}"
            if self.kept[kept].classes:
                yield f"column {name!r} holds numbers of classes, read as their names"


def read_arrow(located: Located, wanted: Wanted) -> Source:
    """Return the records of Parquet or Arrow files. Raises SourceError."""
    files = [_opened(path, located.format) for path in located.files]
    for file in files:
        inside = [name for name in (*wanted.needed, *wanted.optional) if len(path_of(file.schema, name)) > 1]
        wanted.check([*file.schema.names, *inside], where=str(file.path))
    total = sum(file.records for file in files)
    if not total:
        raise SourceError(f"{located.name} has no records: expected at least one")
    numbers = chosen_numbers(total, located.reading)
    found: dict[str, None] = {}
    rejected: list[Rejected] = []
    frames: list[pl.DataFrame] = []
    start = 0
    for file in files:
        columns = _Columns(file, wanted)
        found.update(dict.fromkeys(columns.said()))
        with _reading(file.path):
            frames.append(_frame(file, columns, start, numbers, rejected))
        start += file.records
    rows = joined(frames, located.files, found)
    if not rows.height:
        raise none_usable(located.name, [record.entry for record in rejected])
    return Source(rows=rows, rejected=rejected, found=tuple(found))


def _frame(
    file: _File, columns: _Columns, start: int, numbers: Sequence[int] | None, rejected: list[Rejected]
) -> pl.DataFrame:
    """Return the chosen records of one file, whose first one has the number start + 1."""
    parts: list[pl.DataFrame] = []
    for batch in file.batches(columns.needed):
        end = start + batch.num_rows
        here: Sequence[int] = range(start + 1, end + 1)
        if numbers is not None:
            here = numbers[bisect_left(numbers, start + 1) : bisect_left(numbers, end + 1)]
            places = pl.Series((number - start - 1 for number in here), dtype=pl.Int64)
            batch = batch.take(places.to_arrow())  # noqa: PLW2901  # for a list pyarrow imports pandas
        batch.validate(full=True)  # Arrow takes strings on trust; a broken one must not get further
        parts.append(_rows(batch, here, columns, rejected))
        start = end
        if numbers is not None and (not numbers or numbers[-1] <= end):
            break
    frame = pl.concat(parts, how="vertical") if parts else pl.DataFrame()
    for name, dtype in frame.schema.items():
        if reason := unstorable(dtype):
            raise SourceError(f"{file.path}: column {name!r} holds {reason}")
    return frame


def _rows(batch: Any, numbers: Sequence[int], columns: _Columns, rejected: list[Rejected]) -> pl.DataFrame:
    series = {"source_row": pl.Series(numbers, dtype=pl.Int64)}
    if columns.text:
        series["text"] = columns.text.read(batch).cast(pl.String)
    bad = pl.repeat(value=False, n=batch.num_rows, eager=True)
    for kept, column in columns.kept.items():
        values = column.read(batch)
        series[kept], wrong = column.named(values)
        if wrong is not None and wrong.any():
            for position in (wrong & ~bad).arg_true():
                reason = f"column {kept!r} holds class {values[position]}, which has no name"
                record = {name: column.read(batch.slice(position, 1))[0] for name, column in columns.kept.items()}
                rejected.append(Rejected(numbers[position], "unknown_class", reason, payload(record)))
            bad |= wrong
    frame = pl.DataFrame(series)
    return frame.filter(~bad) if bad.any() else frame


def _opened(path: Path, form: str) -> _File:
    with open_raw(path) as stream:
        if not stream.read(1):
            raise SourceError(f"{path} is empty: expected at least one record")
    with _reading(path):
        return _parquet(path) if form == "parquet" else _stored(path)
    raise AssertionError("unreachable")


def _parquet(path: Path) -> _File:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(str(path))

    def batches(columns: list[str]) -> Iterator[Any]:
        tops = [name for name in file.schema_arrow.names if name in columns]
        yield from file.iter_batches(batch_size=_BATCH, columns=tops)

    return _File(path, file.schema_arrow, file.metadata.num_rows, batches)


def _stored(path: Path) -> _File:
    """Open an Arrow file in either form of the format: with a footer (Feather), or as a stream (Hugging Face)."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"

    def stored() -> Iterator[Any]:
        mapped = pa.memory_map(str(path))
        if not is_file:
            yield from pa.ipc.open_stream(mapped)
            return
        reader = pa.ipc.open_file(mapped)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    with pa.memory_map(str(path)) as file:
        schema = (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).schema
    records = sum(batch.num_rows for batch in stored())
    return _File(path, schema, records, lambda columns: (batch.select(columns) for batch in stored()))


class _reading:  # noqa: N801  # a context, as those of contextlib
    """Turns what a damaged file raises into a SourceError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        damage = (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
        if error is not None and isinstance(error, damage):
            raise SourceError(
                f"{self._path} is damaged, cut short or not a {self._path.suffix.lstrip('.').capitalize()} file "
                f"({one_line(error)}): write or fetch it again"
            ) from error

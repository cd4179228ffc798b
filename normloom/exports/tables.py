"""The tables of an export: what of the store they show, and their files by split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from normloom.core.errors import UsageError
from normloom.core.formats.json_text import json_text
from normloom.core.table import TableRef
from normloom.exports.features import Media, arrow_schema, media_columns, media_kind
from normloom.store.splits import SPLIT
from normloom.store.store import Store
from normloom.tasks.duplicates.split import in_order

Form = Literal["parquet", "jsonl", "csv"]
WHOLE = "train"  # the split of a table that has none, as Hugging Face names it
INTERNAL = "parents"  # ids that lead nowhere outside the store
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_GROUP_ROWS, _GROUP_BYTES = 65_536, 64 << 20  # at which a row group is written
_DTYPES = (pl.List, pl.Array, pl.Struct)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One table of an export, its configuration `name`: the columns and rows of a table in the store."""

    name: str
    ref: TableRef
    schema: Mapping[str, pl.DataType]
    frames: Callable[[], Iterator[pl.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a table: its path in the export, split, rows, bytes and SHA-256."""

    path: str
    split: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Written:
    """A table as it was written: its files and the types in them. Pictures and sound are named in `media`."""

    shown: Shown
    form: Form
    schema: pa.Schema
    files: tuple[DataFile, ...]
    media: Mapping[str, Media] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows of all splits."""
        return sum(file.rows for file in self.files)


def stored(store: Store, ref: TableRef, name: str) -> Shown:
    """Return a table as it is in the store, without what means nothing outside it."""
    schema = {column: kind for column, kind in store.scan(ref).collect_schema().items() if column != INTERNAL}

    def frames() -> Iterator[pl.DataFrame]:
        for path, rows in store.files(ref):
            if rows:
                yield pl.read_parquet(path, glob=False, columns=list(schema))

    return Shown(name=name, ref=ref, schema=schema, frames=frames)


def write(shown: Shown, folder: Path, form: Form) -> Written:
    """Write a table into a folder of its name, a file for each split; none if it has no rows.

    Raises UsageError for a column that the form cannot hold.
    """
    _require_writable(shown, form)
    schema = arrow_schema(_flat(shown.schema) if form == "csv" else shown.schema)
    counts: dict[str, int] = {}
    media: dict[str, Media] = {}
    with ExitStack() as stack:
        writers: dict[str, Callable[[pl.DataFrame], None]] = {}
        for frame in shown.frames():
            for column in media_columns(shown.schema):
                if column not in media and (kind := media_kind(frame[column].struct.field("bytes"))):
                    media[column] = kind
            for split, rows in _by_split(frame):
                if split not in writers:
                    path = folder / _path(shown.name, split, form)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    writers[split] = _writer(path, schema, form, stack)
                writers[split](rows)
                counts[split] = counts.get(split, 0) + rows.height
    files = tuple(
        _described(folder, _path(shown.name, split, form), split, counts[split]) for split in in_order(counts)
    )
    return Written(shown=shown, form=form, schema=schema, files=files, media=media)


def _path(name: str, split: str, form: Form) -> str:
    return f"data/{name}/{split}.{form}"


def _by_split(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the rows of each split; all in one if the table has none, or one that can name no file."""
    if SPLIT not in frame.columns or frame.schema[SPLIT] != pl.String:
        yield WHOLE, frame
        return
    names = frame[SPLIT].unique().to_list()
    if any(name is None or not _SPLIT_NAME.fullmatch(name) for name in names):
        yield WHOLE, frame
        return
    for (name,), rows in frame.partition_by(SPLIT, as_dict=True, maintain_order=True).items():
        yield str(name), rows


def _writer(path: Path, schema: pa.Schema, form: Form, stack: ExitStack) -> Callable[[pl.DataFrame], None]:
    if form == "parquet":
        return stack.enter_context(_ParquetFile(path, schema))
    file: IO[bytes] = stack.enter_context(path.open("wb"))
    if form == "jsonl":
        return lambda rows: rows.write_ndjson(file)
    return _CsvWriter(file)


class _ParquetFile:
    """Writes frames one after another, gathered into row groups that readers like: parts of a table can be small."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.file = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting: list[pl.DataFrame] = []
        self.rows, self.bytes = 0, 0.0

    def __call__(self, rows: pl.DataFrame) -> None:
        self.waiting.append(rows)
        self.rows += rows.height
        self.bytes += rows.estimated_size()
        if self.rows >= _GROUP_ROWS or self.bytes >= _GROUP_BYTES:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.file:
            if kind is None:
                self._flush()

    def _flush(self) -> None:
        if self.waiting:
            self.file.write_table(pl.concat(self.waiting).to_arrow().cast(self.schema))
            self.waiting, self.rows, self.bytes = [], 0, 0.0


class _CsvWriter:
    """Writes frames one after another under one head; nested values are JSON, durations as ISO 8601 has them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.begun = file, False

    def __call__(self, rows: pl.DataFrame) -> None:
        nested = [
            pl.col(name).map_elements(_json, return_dtype=pl.String)
            for name, kind in rows.schema.items()
            if isinstance(kind, _DTYPES)
        ]
        spans = [pl.col(name).dt.to_string("iso") for name, kind in rows.schema.items() if kind == pl.Duration]
        rows.with_columns(*nested, *spans).write_csv(self.file, include_header=not self.begun)
        self.begun = True


def _json(value: Any) -> str:
    return json_text(value.to_list() if isinstance(value, pl.Series) else value)


def _flat(schema: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    return {name: pl.String() if isinstance(kind, (*_DTYPES, pl.Duration)) else kind for name, kind in schema.items()}


def _require_writable(shown: Shown, form: Form) -> None:
    if form == "parquet":
        return
    held = [name for name, kind in shown.schema.items() if _holds_bytes(kind)]
    if held:
        raise UsageError(
            f"column {held[0]!r} of {shown.ref.stage} holds bytes, which {form} cannot hold: use --format hf"
        )


def _holds_bytes(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_holds_bytes(one.dtype) for one in kind.fields)
    if isinstance(kind, pl.List | pl.Array):
        return _holds_bytes(kind.inner)
    return isinstance(kind, pl.Binary)


def _described(folder: Path, path: str, split: str, rows: int) -> DataFile:
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(path=path, split=split, rows=rows, bytes=(folder / path).stat().st_size, sha256=digest)

"""The media of a source, one at a time: memory holds a few of them, however many there are."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any

from normloom.core.errors import SourceError
from normloom.readers.locate import Located
from normloom.readers.media.decode import SUFFIXES, BadMediaError
from normloom.readers.media.locate import LocatedMedia, dataset_of, within
from normloom.readers.opening import open_raw
from normloom.readers.read import ARROW, read_source
from normloom.readers.records import Rejected, one_line

_BATCH = 32  # records of Parquet that are in memory at once
_BESIDE = 1 << 20  # bytes of a text that comes with a picture in an archive; longer ones are left out
BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Entry:
    """One image or sound of a source: where it was, its file name (empty if it has none), and its other columns.

    `read` returns its bytes and raises `BadMediaError` if it cannot.
    """

    origin: str
    name: str
    read: Callable[[], bytes]
    beside: Mapping[str, Any] = field(default_factory=dict)


def entries(source: LocatedMedia, *, keep: tuple[str, ...] = (), most: int) -> Iterator[Entry]:
    """Yield the media of a source in order, with the columns `keep` of their records; `most` bytes of each are read.

    In archives a text next to a medium (`0001.jpg`, `0001.txt`, as in webdataset) is a column called as its suffix.
    Raises SourceError for an archive or table that cannot be read.
    """
    if source.form == "folder":
        for path in source.files:
            yield Entry(str(path.relative_to(source.root)), path.name, partial(_from, path, source, most))
    elif source.form == "archive":
        for path in source.files:
            yield from _archived(path, keep, most)
    else:
        assert source.table is not None
        assert source.column is not None
        yield from _in_table(source, source.table, source.column, keep, most)


def _from(path: Path, source: LocatedMedia, most: int) -> bytes:
    if not source.outside and not within(source.root, path):
        raise BadMediaError(
            "outside_folder", f"{path} leads out of {source.root}; set source.outside to true to allow it"
        )
    if not path.exists():
        raise BadMediaError("missing_file", f"{path} does not exist")
    try:
        with open_raw(path) as stream:
            return _read(stream, most)
    except (SourceError, OSError) as error:
        raise BadMediaError("unreadable", one_line(error)) from error


def _read(stream: IO[bytes], most: int) -> bytes:
    data = stream.read(most + 1)
    if len(data) > most:
        raise BadMediaError("too_large", f"more than {most:,} bytes")
    return data


def _in_table(source: LocatedMedia, table: Located, column: str, keep: tuple[str, ...], most: int) -> Iterator[Entry]:
    for number, record in _records(table, (column, *keep)):
        origin = f"record {number}"
        if isinstance(record, Rejected):
            yield Entry(origin, "", partial(_rejected, record))
            continue
        value = record[column]
        beside = {name: record[name] for name in keep}
        path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
        data = value if isinstance(value, bytes) else data
        if data is not None:
            yield Entry(
                origin, Path(path or "").name if isinstance(path, str) else "", partial(_held, data, most), beside
            )
        elif path and isinstance(path, str):
            yield Entry(origin, Path(path).name, partial(_from, source.root / path, source, most), beside)
        else:
            yield Entry(origin, "", _nothing, beside)


def _held(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise BadMediaError("too_large", f"{len(data):,} bytes: expected at most {most:,}")
    return data


def _nothing() -> bytes:
    raise BadMediaError("missing_file", "neither a path nor bytes")


def _rejected(record: Rejected) -> bytes:
    raise BadMediaError(record.rule, record.reason)


def _records(table: Located, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """Yield the records of a table by number; those of Parquet a few at a time, since they may hold the media."""
    if table.format not in ARROW:
        read = read_source(table, text_column=None, keep=columns)
        rows = read.rows.with_columns(read.text(name) for name in read.mixed).select(columns)
        kept = dict(zip(read.rows["source_row"], rows.iter_rows(named=True), strict=True))
        yield from sorted({**kept, **{one.source_row: one for one in read.rejected}}.items(), key=itemgetter(0))
        return
    data = dataset_of(table)
    if unknown := sorted(set(columns) - set(data.schema.names)):
        raise SourceError(f"{table.name} has no column {unknown[0]!r}: it has {', '.join(data.schema.names)}")
    batches = data.to_batches(columns=list(columns), batch_size=_BATCH, batch_readahead=1, fragment_readahead=1)
    yield from enumerate((record for batch in batches for record in batch.to_pylist()), start=1)


def _archived(path: Path, keep: tuple[str, ...], most: int) -> Iterator[Entry]:
    try:
        if path.suffix.lower() == ".zip":
            yield from _zipped(path, keep, most)
        else:
            with tarfile.open(path) as archive:
                yield from _tarred(path, archive, keep, most)
    except BROKEN as error:
        raise SourceError(f"{path} cannot be read ({one_line(error)}): check the file and its disk") from error


def _zipped(path: Path, keep: tuple[str, ...], most: int) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        sizes = {one.filename: one.file_size for one in archive.infolist() if not one.is_dir()}
        for name in sorted(filter(_is_medium, sizes)):
            stem = name.rpartition(".")[0]
            texts = [f"{stem}.{suffix}" for suffix in keep]
            beside = {
                suffix: archive.read(text).decode(errors="replace") if sizes.get(text, _BESIDE) < _BESIDE else None
                for suffix, text in zip(keep, texts, strict=True)
            }
            yield Entry(f"{path.name}/{name}", PurePosixPath(name).name, partial(_member, archive, name, most), beside)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    try:
        with archive.open(name) as stream:
            return _read(stream, most)
    except BROKEN as error:
        raise BadMediaError("unreadable", one_line(error)) from error


def _tarred(path: Path, archive: tarfile.TarFile, keep: tuple[str, ...], most: int) -> Iterator[Entry]:
    """Yield the media of a tar file in its order; members of one stem follow each other, as in webdataset."""
    stem, media, texts = "", list[tuple[str, bytes | BadMediaError]](), dict[str, str]()

    def group() -> Iterator[Entry]:
        for name, data in media:
            beside = {suffix: texts.get(suffix) for suffix in keep}
            yield Entry(f"{path.name}/{name}", PurePosixPath(name).name, partial(_known, data), beside)

    for member in archive:
        stream = archive.extractfile(member) if member.isfile() else None
        if stream is None:
            continue
        name, _, suffix = member.name.rpartition(".")
        if name != stem:
            yield from group()
            stem, media, texts = name, [], {}
        if _is_medium(member.name):
            try:
                media.append((member.name, _read(stream, most)))
            except BadMediaError as error:
                media.append((member.name, error))
        elif suffix in keep and member.size < _BESIDE:
            texts[suffix] = stream.read().decode(errors="replace")
    yield from group()


def _known(data: bytes | BadMediaError) -> bytes:
    if isinstance(data, BadMediaError):
        raise data
    return data


def _is_medium(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")

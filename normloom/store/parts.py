"""The parts of a table: who writes them, their files, and the record that commits each."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
from blake3 import blake3

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import KINDS, LEDGERS, NO_FILE, FileRecord, Kind, PartRecord
from normloom.store.files import sync_directory, write_file, write_together, writing
from normloom.store.integrity import content_of, has_files, is_whole, parsed
from normloom.store.layout import LOCK, MARKERS, PRODUCT, index_of, marker_name, part_marker
from normloom.store.locks import lease
from normloom.store.reused import drop_reused, line_of, reused_records, write_reused

ROW_GROUP = 16_384  # rows that a reader of a slice of a large file has to decode
_KEPT = 4  # row groups that stay decoded


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Who writes a table: `token` is in the names of its files, the rest tells people where to look."""

    token: str
    build: str
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)

    @classmethod
    def of(cls, build: str) -> Writer:
        """Return a writer of its own for one table of a build."""
        return cls(token=secrets.token_hex(3), build=build)

    def __str__(self) -> str:
        return f"build {self.build} (process {self.process} on {self.host}, writer {self.token})"


def require_writer(directory: Path, token: str) -> None:
    """Raise StoreError if the table is published or another writer has taken over."""
    lock = directory / LOCK
    holder = lease.holder_of(lock) if isinstance(lock, ObjectPath) else lock.read_text()
    if f"writer {token})" not in holder:
        taken = f"is being written by {holder}" if holder else "is finished, or its build has ended"
        raise StoreError(f"the table in {directory} {taken}: this part is left alone")


def write_frames(
    directory: Path, index: int, frames: Mapping[Kind, pl.DataFrame], *, writer: str
) -> dict[Kind, FileRecord]:
    """Write the files of one part and return their records; a ledger without entries gets no file."""
    written = [kind for kind in KINDS if kind == "rows" or frames[kind].height]
    names = {kind: f"{kind}-{index:05d}-{writer}.parquet" for kind in written}
    files = {kind: _ParquetFile(frames[kind]) for kind in written}
    write_together({directory / names[kind]: file.write_to for kind, file in files.items()})
    records = {
        kind: FileRecord(name=names[kind], rows=frames[kind].height, bytes=file.size, blake3=file.checksum)
        for kind, file in files.items()
    }
    return {kind: records.get(kind, NO_FILE) for kind in KINDS}


class _ParquetFile:
    """Rows as a Parquet file that need not be in memory whole; once it is written its size and checksum are known."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.size = 0
        self._rows = rows
        self._hasher = blake3()
        self._refusal: OSError | None = None

    @property
    def checksum(self) -> str:
        return self._hasher.hexdigest()

    def write_to(self, file: BinaryIO) -> None:
        self._file = file
        try:
            target: Any = self  # as much of a file as Polars needs
            self._rows.write_parquet(target, compression="zstd", statistics=True, row_group_size=ROW_GROUP)
        except pl.exceptions.PolarsError:
            if self._refusal:  # a full disk, which Polars tells as an error of the data
                raise self._refusal from None
            raise

    def write(self, content: bytes) -> int:
        self.size += len(content)
        self._hasher.update(content)
        try:
            return self._file.write(content)
        except OSError as error:
            self._refusal = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_files(directory: Path, index: int, folder: Path, *, writer: str) -> tuple[FileRecord, ...]:
    """Take the files in a folder over as those of a part, and return their records by name.

    The folder is renamed when all are on the disk. Raises StoreError for a link or anything else that is no file.
    """
    target = directory / f"{PRODUCT}{index:05d}-{writer}"
    records = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder)
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"{path}: the files of a product must be regular files, not links")
        with writing(path), path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        records.append(
            FileRecord(name=f"{target.name}/{name.as_posix()}", rows=0, bytes=path.stat().st_size, sha256=digest)
        )
    if isinstance(target, ObjectPath):
        for record in records:
            below = record.name.partition("/")[2]
            write_file(target / below, (folder / below).read_bytes())
    elif records:
        with writing(target):
            for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
                sync_directory(inner)
            folder.rename(target)
            sync_directory(directory)
    return tuple(records)


def committed_part(directory: Path, index: int, *, verify: bool = True) -> PartRecord | None:
    """Return a committed part, None if it is not there or its files do not verify.

    Without `verify` files count as whole if their sizes are right.
    """
    content = _recorded(directory, index)
    record = parsed(PartRecord.model_validate_json, content, part_marker(directory, index))
    whole = is_whole if verify else has_files
    return record if record and whole(directory, record) else None


def _recorded(directory: Path, index: int) -> bytes | None:
    """Return the record of a part as it is written: its marker, or without one that of the part as taken over."""
    name = marker_name(index)
    content = content_of(directory / name if isinstance(directory, ObjectPath) else f"{directory}/{name}")
    return reused_records(directory).get(index) if content is None else content


def committed_parts(directory: Path) -> list[int]:
    """Return the parts that the table in a directory has records of, in order."""
    return sorted({index_of(marker) for marker in directory.glob(MARKERS)} | reused_records(directory).keys())


def write_part(directory: Path, record: PartRecord, *, writer: str, instead: PartRecord | None = None) -> PartRecord:
    """Write the marker that commits a part, whose files must be there; return the part that counts.

    In object storage that is the one that was committed first of the same rows, unless that is `instead`, which this
    one replaces. Raises StoreError if another writer has taken over.
    """
    marker, content = part_marker(directory, record.index), _content(record)
    if not isinstance(marker, ObjectPath):
        write_file(marker, content)
        return record
    while not marker.replace_if(content, None):
        found = marker.tag_of()
        first = committed_part(directory, record.index)
        require_writer(directory, writer)  # after the look: what is written later than this makes the put fail
        replaces = instead is not None and first is not None and first.is_as(instead)
        if first and not replaces and (first.start, first.stop) == (record.start, record.stop):
            if instead:
                raise StoreError(f"another build has written {marker}: this build stops")
            return first
        if found and marker.replace_if(content, found[1]):
            break
    return record


def is_committed(directory: Path, record: PartRecord) -> bool:
    """Return whether a part is committed as recorded; its files are not looked at."""
    content = _recorded(directory, record.index)
    if content and content == (_content if content.startswith(b"{\n") else line_of)(record):
        return True  # nearly always: parsing thousands takes seconds
    found = parsed(PartRecord.model_validate_json, content, part_marker(directory, record.index))
    return found is not None and found.is_as(record)


def _content(record: PartRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()


def forget_parts(directory: Path, parts: Sequence[PartRecord], *, writer: str) -> None:
    """Take back committed parts of a table that is not published, their files too.

    In object storage their markers are emptied, and their files go when the table is published. Raises StoreError if
    another writer has taken over.
    """
    drop_reused(directory, {part.index for part in parts})
    for part in parts:
        marker = part_marker(directory, part.index)
        if isinstance(marker, ObjectPath):
            found = marker.tag_of()
            require_writer(directory, writer)
            if found and not marker.replace_if(b"", found[1]):
                raise StoreError(f"another build has written {marker}: this build stops")
            continue
        marker.unlink(missing_ok=True)
        for file in part.stored:
            (directory / file.name).unlink(missing_ok=True)


def adopt_parts(source: Path, directory: Path, parts: Sequence[PartRecord], *, writer: str) -> list[PartRecord]:
    """Take over committed parts of another table, given as they are to be here; return those that count.

    Nothing is copied if the file system can link. The parts are on the disk when this returns. In object storage their
    files get names of this writer's.
    """
    if isinstance(directory, ObjectPath):
        return [_copied(source, directory, part, writer=writer) for part in parts]
    with writing(directory):
        for part in parts:
            for folder in sorted({(directory / file.name).parent for file in part.attached}):
                folder.mkdir(parents=True, exist_ok=True)
            for file in part.stored:
                _link(f"{source}/{file.name}", f"{directory}/{file.name}")
        for folder in {directory, *((directory / file.name).parent for part in parts for file in part.attached)}:
            sync_directory(folder)
    if parts:
        write_reused(directory, parts)
    return list(parts)


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it if it can have none; a name that is taken stays."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        write_file(Path(target), Path(source).read_bytes())


def _copied(source: Path, directory: Path, record: PartRecord, *, writer: str) -> PartRecord:
    own = _named_for(record, writer)
    for file, taken in zip(record.stored, own.stored, strict=True):
        write_file(directory / taken.name, (source / file.name).read_bytes())
    return write_part(directory, own, writer=writer)


def _named_for(record: PartRecord, writer: str) -> PartRecord:
    return record.model_copy(
        update={
            "files": {kind: _renamed(file, record.index, writer) for kind, file in record.files.items()},
            "attached": tuple(_renamed(file, record.index, writer) for file in record.attached),
        }
    )


def _renamed(file: FileRecord, index: int, writer: str) -> FileRecord:
    """Return the record of a file `kind-INDEX-WRITER...` under another index and writer."""
    name = re.sub(r"^([a-z]+)-\d+-[0-9a-f]+", rf"\1-{index:05d}-{writer}", file.name)
    return file.model_copy(update={"name": name})


def scan_parts(directory: Path, parts: Sequence[PartRecord], kind: Kind = "rows") -> pl.LazyFrame:
    """Return the rows of parts, or what they dropped or quarantined, not yet read; there must be one part at least."""
    files = [f"{directory}/{file.name}" for file in (part.files[kind] for part in parts) if file.name]
    return pl.scan_parquet(files, glob=False) if files else pl.LazyFrame(schema=LEDGERS[kind])


def read_slice(
    files: Sequence[tuple[Path, int]], start: int, stop: int, *, columns: tuple[str, ...] | None = None
) -> pl.DataFrame:
    """Return rows `start` to `stop` of files laid end to end (path and row count of each), or these columns of them."""
    held, offset = [], 0
    for path, rows in files:
        first, last = max(start - offset, 0), min(stop - offset, rows)
        if first < last:
            held.append((path, first, last, last - first == rows))
        offset += rows
    frames: list[pl.DataFrame] = []
    for whole, some in groupby(held, key=itemgetter(3)):
        if whole:
            frames.append(_read([path for path, *_ in some], columns))
        else:
            frames += chain.from_iterable(_pieces(path, first, last, columns) for path, first, last, _ in some)
    if frames:
        return pl.concat(frames, how="vertical")
    return _scan([files[0][0]], columns).head(0).collect() if files else pl.DataFrame()


def _pieces(path: Path, first: int, last: int, columns: tuple[str, ...] | None) -> list[pl.DataFrame]:
    """Return some rows of a file, in pieces; parts that follow each other decode a row group once."""
    groups = range(first // ROW_GROUP, (last - 1) // ROW_GROUP + 1)
    if len(groups) > _KEPT:
        return [_scan([path], columns).slice(first, last - first).collect()]
    found = []
    for group in groups:
        begin = group * ROW_GROUP
        start, stop = max(first - begin, 0), min(last - begin, ROW_GROUP)
        found.append(_row_group(path, group, columns)[start:stop])
    return found


@lru_cache(maxsize=_KEPT)
def _row_group(path: Path, number: int, columns: tuple[str, ...] | None) -> pl.DataFrame:
    return _scan([path], columns).slice(number * ROW_GROUP, ROW_GROUP).collect()


def forget_row_groups() -> None:
    """Let go of the row groups that stay decoded."""
    _row_group.cache_clear()


def _scan(paths: list[Path], columns: tuple[str, ...] | None) -> pl.LazyFrame:
    rows = pl.scan_parquet(paths, glob=False)
    return rows if columns is None else rows.select(columns)


def _read(paths: list[Path], columns: tuple[str, ...] | None) -> pl.DataFrame:
    """Return the rows of files: of one without planning a query, which of many takes half the time."""
    if len(paths) > 1:
        return _scan(paths, columns).collect()
    return pl.read_parquet(paths[0], glob=False, columns=columns if columns is None else list(columns))


def content_hash(parts: Sequence[PartRecord]) -> str:
    """Return the hash of a product, from the checksums of its rows' files in order and of its other files by name."""
    files = [f"{file.name.partition('/')[2]} {file.checksum}" for part in parts for file in part.attached]
    joined = "\n".join([*(part.files["rows"].checksum for part in parts), *files])
    return hashlib.sha256(joined.encode()).hexdigest()[:20]

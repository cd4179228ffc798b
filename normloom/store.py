"""The store: one directory per stage key, immutable once its manifest is there.

    <root>/<system>/<stage>/<key>/rows-00000.parquet      what the stage made
                                  dropped-00000.parquet    what the method took out
                                  quarantined-00000.parquet
                                  part-00000.json          written last: the part counts
                                  manifest.json            written last: the table is published
    <root>/<system>/<stage>/current                        the key of the newest table
    <root>/<system>/builds/<build>.yaml                    stage -> key of one build

Every file is written under a temporary name, flushed to disk and renamed. A part counts only while
the checksums of its files verify, so killing a writer at any moment loses at most the part in flight.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import polars as pl
from pydantic import ValidationError

from normloom.errors import StoreError
from normloom.table import KINDS, FileRecord, Kind, Manifest, PartRecord, TableRef

MANIFEST = "manifest.json"
CURRENT = "current"
LOCK = "lock"
BUILDS = "builds"

Record = TypeVar("Record")


class Store:
    """A directory of tables, shared by any number of readers and builds."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def directory(self, system: str, stage: str, key: str) -> Path:
        """Return where the table with this key is or would be."""
        return self.root / system / stage / key

    def table_directory(self, ref: TableRef) -> Path:
        """Return where a published table is."""
        return self.directory(ref.system, ref.stage, ref.key)

    def published(self, system: str, stage: str, key: str) -> Manifest | None:
        """Return the manifest of a published table whose files are all there, None where there is none."""
        directory = self.directory(system, stage, key)
        manifest = _load(Manifest.model_validate_json, directory / MANIFEST)
        if manifest is None or not all(_present(directory, part) for part in manifest.parts):
            return None
        return manifest

    def manifest(self, ref: TableRef) -> Manifest:
        """Return the manifest of a published table, or raise StoreError."""
        manifest = self.published(ref.system, ref.stage, ref.key)
        if manifest is None:
            raise StoreError(
                f"table {ref} is not in the store at {self.root}, or files of it are missing: build it again"
            )
        return manifest

    def scan(self, ref: TableRef, kind: Kind = "rows") -> pl.LazyFrame:
        """Return the rows of a table (or what it dropped or quarantined), lazily."""
        manifest = self.manifest(ref)
        return pl.scan_parquet([path for path, _ in manifest.files(self.table_directory(ref), kind)])

    def current(self, system: str, stage: str) -> Manifest | None:
        """Return the manifest of the newest table of a stage, None where none is published."""
        try:
            key = (self.root / system / stage / CURRENT).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self.published(system, stage, key)

    def systems(self) -> list[str]:
        """Return the systems that have been built here."""
        return sorted(path.name for path in _directories(self.root))

    def newest(self, system: str) -> list[Manifest]:
        """Return the newest table of each stage of a system, oldest first."""
        stages = [path.name for path in _directories(self.root / system) if path.name != BUILDS]
        manifests = [manifest for stage in stages if (manifest := self.current(system, stage))]
        return sorted(manifests, key=lambda manifest: manifest.created)

    def parts(self, directory: Path) -> dict[int, PartRecord]:
        """Return the committed parts of a table that is not published yet, those that verify, by index."""
        records = [_load(PartRecord.model_validate_json, path) for path in sorted(directory.glob("part-*.json"))]
        return {record.index: record for record in records if record and _verified(directory, record)}

    @contextmanager
    def lock(self, directory: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to write a table; `waiting` is called once if another process has it.

        The kernel frees the lock when its holder dies.
        """
        with _writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            handle = (directory / LOCK).open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, which publishes the table, and point to it as the newest."""
        directory = self.directory(manifest.system, manifest.stage, manifest.key)
        write_file(directory / MANIFEST, manifest.model_dump_json(indent=1).encode())
        self.point(manifest.ref)

    def point(self, ref: TableRef) -> None:
        """Make a published table the newest of its stage."""
        pointer = self.root / ref.system / ref.stage / CURRENT
        if not pointer.exists() or pointer.read_text().strip() != ref.key:
            write_file(pointer, f"{ref.key}\n".encode())

    def write_build(self, system: str, build: str, text: str) -> Path:
        """Write the lock of a build and return its path."""
        path = self.root / system / BUILDS / f"{build}.yaml"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode())
        return path


def write_frames(
    directory: Path, index: int, frames: Mapping[Kind, pl.DataFrame], *, suffix: str = ""
) -> dict[Kind, FileRecord]:
    """Write the files of one part and return their records."""
    records: dict[Kind, FileRecord] = {}
    for kind in KINDS:
        buffer = io.BytesIO()
        frames[kind].write_parquet(buffer, compression="zstd", statistics=True)
        content = buffer.getvalue()
        name = f"{kind}-{index:05d}{suffix}.parquet"
        write_file(directory / name, content)
        digest = hashlib.sha256(content).hexdigest()
        records[kind] = FileRecord(name=name, rows=frames[kind].height, bytes=len(content), sha256=digest)
    return records


def write_part(directory: Path, record: PartRecord) -> None:
    """Write the marker that commits a part; its files must be there."""
    write_file(directory / f"part-{record.index:05d}.json", record.model_dump_json(indent=1).encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        try:
            with temporary.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def read_slice(files: Sequence[tuple[Path, int]], start: int, stop: int) -> pl.DataFrame:
    """Return rows `start` to `stop` of files laid end to end (path and row count of each)."""
    frames, offset = [], 0
    for path, rows in files:
        first, last = max(start - offset, 0), min(stop - offset, rows)
        if first < last:
            whole = (first, last) == (0, rows)
            frames.append(
                pl.read_parquet(path) if whole else pl.scan_parquet(path).slice(first, last - first).collect()
            )
        offset += rows
    if frames:
        return pl.concat(frames, how="vertical")
    return pl.read_parquet(files[0][0]).clear() if files else pl.DataFrame()


def content_hash(parts: Sequence[PartRecord]) -> str:
    """Return the hash of a table's rows, from the checksums of its files in row order."""
    joined = "\n".join(part.files["rows"].sha256 for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:20]


def _load(parse: Callable[[bytes], Record], path: Path) -> Record | None:
    try:
        return parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _present(directory: Path, part: PartRecord) -> bool:
    for record in part.files.values():
        try:
            if (directory / record.name).stat().st_size != record.bytes:
                return False
        except OSError:
            return False
    return True


def _verified(directory: Path, part: PartRecord) -> bool:
    return _present(directory, part) and all(
        hashlib.sha256((directory / record.name).read_bytes()).hexdigest() == record.sha256
        for record in part.files.values()
    )


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space and run the same command again, finished parts are kept",
            errno.EDQUOT: "free some space and run the same command again, finished parts are kept",
        }.get(error.errno or 0, "give --store a directory that can be written")
        raise StoreError(f"cannot write {path}: {error.strerror or error}; {advice}") from error

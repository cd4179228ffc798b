"""The store: one directory per stage key, immutable once its manifest is there.

    <root>/format                                                   the number of this layout
    <root>/<system>/<stage>/<key>/rows-00000-WRITER.parquet         what the stage made
                                  dropped-00000-WRITER.parquet       what the method took out
                                  quarantined-00000-WRITER.parquet
                                  part-00000.json                    written last: the part counts
                                  manifest.json                      written last: the table is published
                                  files-00000-WRITER/                the files of a product, listed by the part
                                  scratch/                           of a step that is not done; gone when published
                                  lock                               who writes here; held while it lives
                                  superseded                         the key of the remake that stands for this table
    <root>/<system>/<stage>/current                                  the key of the newest table
    <root>/<system>/latest                                           link to the newest release (normloom.store.latest)
    <root>/<system>/builds/<build>.yaml                              stage -> key of one build
    <root>/<system>/builds/running                                   held, shared, by every build at work

Every file is written under a temporary name, flushed to disk and renamed. A part counts only while
the checksums of its files verify, so killing a writer at any moment loses at most the part in flight.
File names carry their writer, so that a process which outlives its build never touches its successor's files.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import polars as pl
from pydantic import ValidationError

from normloom.core.cache import cache_dir
from normloom.core.errors import StoreError
from normloom.core.object_path import ObjectPath, place_of
from normloom.core.table import KINDS, FileRecord, Kind, Manifest, PartRecord, TableRef
from normloom.store import lease
from normloom.store.files import put_new, remove_tree, sync_directory, write_file, writing

MANIFEST = "manifest.json"
CURRENT = "current"
LOCK = "lock"
SUPERSEDED = "superseded"
BUILDS = "builds"
RUNNING = "running"
RELEASE = "release"
SCRATCH = "scratch"
PRODUCT = "files-"  # begins the name of a folder with files of a product
FORMAT_FILE = "format"
FORMAT = 3  # of stores and their records; records of 1 (without a number) and 2 are read as they are

Record = TypeVar("Record")


log = logging.getLogger("normloom.store")


class Store:
    """A directory of tables, or objects below `s3://bucket/prefix`, shared by any number of readers and builds.

    Raises StoreError if a newer Normloom wrote it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = place_of(root)
        if (found := _format_of(self.root)) > FORMAT:
            raise StoreError(
                f"the store {self.root} has format {found}, written by a newer Normloom; this version reads formats up "
                f"to {FORMAT}: upgrade Normloom, or give --store another directory"
            )
        self._verified: set[tuple[TableRef, Kind]] = set()
        self._verified_folders: set[Path] = set()
        self._leases: dict[Path, lease.Lease] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @property
    def home(self) -> Path:
        """The directory on this machine of what is this machine's own: the runs in Prefect that its processes hold."""
        if isinstance(self.root, ObjectPath):
            return cache_dir().joinpath("stores", *self.root.parts[1:])
        return self.root

    def directory(self, system: str, stage: str, key: str) -> Path:
        """Return where the table with this key is or would be."""
        return self.root / system / stage / key

    def table_directory(self, ref: TableRef) -> Path:
        """Return where a published table is."""
        return self.directory(ref.system, ref.stage, ref.key)

    def published(self, system: str, stage: str, key: str) -> Manifest | None:
        """Return the manifest of a published table whose files are all there, None if there is none."""
        directory = self.directory(system, stage, key)
        manifest = _load(Manifest.model_validate_json, directory / MANIFEST)
        if manifest is None or _absent(directory, manifest.parts):
            return None
        return manifest

    def resolved(self, system: str, stage: str, key: str) -> Manifest | None:
        """Return the manifest of the table that stands for a key: its own, or that of a forced remake of it."""
        pointer = self.directory(system, stage, key) / SUPERSEDED
        remade = self.published(system, stage, pointer.read_text().strip()) if pointer.exists() else None
        return remade or self.published(system, stage, key)

    def supersede(self, manifest: Manifest, key: str) -> None:
        """Let a published remake stand for the table with this key."""
        write_file(self.directory(manifest.system, manifest.stage, key) / SUPERSEDED, f"{manifest.key}\n".encode())

    def manifest(self, ref: TableRef) -> Manifest:
        """Return the manifest of a published table, or raise StoreError."""
        manifest = self.published(ref.system, ref.stage, ref.key)
        if manifest is None:
            raise StoreError(
                self.why_unreadable(ref.system, ref.stage, ref.key) or f"table {ref} is not in the store at {self.root}"
            )
        return manifest

    def why_unreadable(self, system: str, stage: str, key: str | None = None) -> str | None:
        """Say why a published table, the newest if no key is given, cannot be read; None if it can or is not there."""
        key = key or self._current_key(system, stage)
        directory = self.directory(system, stage, key or "")
        if key is None or not (directory / MANIFEST).is_file() or self.published(system, stage, key):
            return None
        try:
            manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
        except FileNotFoundError:  # gc took it meanwhile
            return None
        except ValidationError as error:
            what = f"its manifest cannot be read ({_fault(error)}): damaged, or another version of Normloom wrote it"
        else:
            parts = _absent(directory, manifest.parts)
            what = f"files of its part {parts[0].index} are missing or cut short"
        return f"table {system}/{stage}/{key}: {what}; build {system} again to make what is missing"

    def scan(self, ref: TableRef, kind: Kind = "rows") -> pl.LazyFrame:
        """Return the rows of a table (or what it dropped or quarantined), lazily."""
        return pl.scan_parquet([path for path, _ in self.files(ref, kind)], glob=False)

    def files(self, ref: TableRef, kind: Kind = "rows") -> list[tuple[Path, int]]:
        """Return the files of a table with their row counts, in row order.

        Their checksums are verified the first time; raises StoreError naming a file that is not as it was written.
        """
        manifest, directory = self.manifest(ref), self.table_directory(ref)
        if (ref, kind) not in self._verified:
            for part in manifest.parts:
                record = part.files[kind]
                if problem := file_problem(directory / record.name, record):
                    raise StoreError(
                        f"table {ref}, part {part.index}: {record.name} {problem}; "
                        f"run normloom verify {ref.system} --repair, then build again"
                    )
            self._verified.add((ref, kind))
        return manifest.files(directory, kind)

    def folder(self, ref: TableRef) -> Path:
        """Return the folder with the files of a product.

        Raises StoreError if it has none, and naming a file that is not as it was written or that was put there since.
        """
        manifest, directory = self.manifest(ref), self.table_directory(ref)
        listed = [record for part in manifest.parts for record in part.attached]
        if not listed:
            raise StoreError(f"product {ref} has no files, only rows")
        folder = directory / Path(listed[0].name).parts[0]
        if folder not in self._verified_folders:
            for name, problem in _damage(directory, folder, listed):
                raise StoreError(
                    f"product {ref}: {name} {problem}; run normloom verify {ref.system} --repair, then build again"
                )
            self._verified_folders.add(folder)
        return folder

    def current(self, system: str, stage: str) -> Manifest | None:
        """Return the manifest of the newest table of a stage, None if none is published."""
        key = self._current_key(system, stage)
        return None if key is None else self.published(system, stage, key)

    def _current_key(self, system: str, stage: str) -> str | None:
        try:
            return (self.root / system / stage / CURRENT).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def systems(self) -> list[str]:
        """Return the systems that have been built here."""
        return sorted(path.name for path in _directories(self.root))

    def newest(self, system: str) -> list[Manifest]:
        """Return the newest table of each stage of a system, oldest first."""
        stages = [path.name for path in _directories(self.root / system) if path.name != BUILDS]
        manifests = [manifest for stage in stages if (manifest := self.current(system, stage))]
        return sorted(manifests, key=lambda manifest: manifest.created)

    def unreadable(self, system: str) -> list[str]:
        """Say why each newest table of a system that cannot be read cannot."""
        stages = sorted(path.name for path in _directories(self.root / system) if path.name != BUILDS)
        return [why for stage in stages if (why := self.why_unreadable(system, stage))]

    def parts(self, directory: Path, *, verify: bool = True) -> dict[int, PartRecord]:
        """Return the committed parts of a table that is not published yet, those whose files are whole, by index.

        Without `verify` files count as whole if their sizes are right; their checksums are not read.
        """
        records = [_committed(path, verify=verify) for path in sorted(directory.glob("part-*.json"))]
        return {record.index: record for record in records if record}

    @contextmanager
    def lock(self, directory: Path, writer: Writer, *, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the right to write a table; `waiting` is told once who has it, if another process does.

        The kernel frees the lock when its holder dies; in object storage its lease runs out.
        """
        if isinstance(directory, ObjectPath):
            with lease.held(directory / LOCK, str(writer), waiting=waiting) as held:
                self._leases[directory] = held
                try:
                    yield
                finally:
                    del self._leases[directory]
            return
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            handle = (directory / LOCK).open("a+")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                waiting(handle.read().strip() or "another process")
                fcntl.flock(handle, fcntl.LOCK_EX)
            with writing(directory / LOCK):  # past the handle's buffer, which would fail again when it is closed
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), str(writer).encode())
                os.fsync(handle.fileno())  # NFS: so that actors on other machines read it
            try:
                yield
            finally:  # a copy of a part that comes in late finds that nobody writes here any more
                os.ftruncate(handle.fileno(), 0)

    @contextmanager
    def building(self, system: str) -> Iterator[None]:
        """Keep the tables of a system from being removed while a build is at work; any number may be."""
        path = self.root / system / BUILDS / RUNNING
        if isinstance(path, ObjectPath):
            self._write_format()
            token = secrets.token_hex(4)
            with lease.held(path.with_name(f".{RUNNING}-{token}"), token):
                while lease.is_held(path):  # by gc
                    time.sleep(lease.WAIT_SECONDS)
                yield
            path.with_name(f".{RUNNING}-{token}").unlink(missing_ok=True)
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
        self._write_format()
        with handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    def _write_format(self) -> None:
        if _format_of(self.root) < FORMAT:
            write_file(self.root / FORMAT_FILE, f"{FORMAT}\n".encode())

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, which publishes the table, and point to it as the newest.

        Files that it does not name (of a writer that was killed) go first: who reads `rows-*.parquet` gets the table.
        """
        directory = self.directory(manifest.system, manifest.stage, manifest.key)
        if held := self._leases.get(directory):
            held.require()
        named = {Path(record.name).parts[0] for part in manifest.parts for record in part.stored}
        for path in directory.glob("*.parquet"):
            if path.name not in named:
                path.unlink()
        for path in directory.glob(f"{PRODUCT}*"):
            if path.name not in named:
                remove_tree(path)
        remove_tree(directory / RELEASE)  # of files that are not these
        (directory / f".{RELEASE}").unlink(missing_ok=True)
        write_file(directory / MANIFEST, manifest.model_dump_json(indent=1).encode())
        remove_tree(scratch_of(directory))
        self.point(manifest.ref)

    def point(self, ref: TableRef) -> None:
        """Make a published table the newest of its stage, younger than any that was refused before."""
        pointer = self.root / ref.system / ref.stage / CURRENT
        if not pointer.exists() or pointer.read_text().strip() != ref.key:
            write_file(pointer, f"{ref.key}\n".encode())
        else:
            with writing(pointer):
                pointer.touch()

    def write_build(self, system: str, build: str, text: str) -> Path:
        """Write the lock of a build and return its path."""
        path = self.root / system / BUILDS / f"{build}.yaml"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode())
        return path


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
    """Write the files of one part and return their records."""
    records: dict[Kind, FileRecord] = {}
    for kind in KINDS:
        buffer = io.BytesIO()
        frames[kind].write_parquet(buffer, compression="zstd", statistics=True)
        content = buffer.getvalue()
        name = f"{kind}-{index:05d}-{writer}.parquet"
        write_file(directory / name, content)
        digest = hashlib.sha256(content).hexdigest()
        records[kind] = FileRecord(name=name, rows=frames[kind].height, bytes=len(content), sha256=digest)
    return records


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
    return _committed(part_marker(directory, index), verify=verify)


def write_part(directory: Path, record: PartRecord, *, instead: bool = False) -> PartRecord:
    """Write the marker that commits a part, whose files must be there; return the part that counts.

    In object storage that is the one that was committed first, unless this one is to stand `instead` of it.
    """
    marker, content = part_marker(directory, record.index), record.model_dump_json(indent=1).encode()
    if isinstance(marker, ObjectPath) and not instead:
        first = None if put_new(marker, content) else _committed(marker)
        if first:
            return first
    write_file(marker, content)
    return record


def part_marker(directory: Path, index: int) -> Path:
    """Return the file that commits a part."""
    return directory / f"part-{index:05d}.json"


def _committed(marker: Path, *, verify: bool = True) -> PartRecord | None:
    record = _load(PartRecord.model_validate_json, marker)
    whole = _verified if verify else _present
    return record if record and whole(marker.parent, record) else None


def forget_part(directory: Path, record: PartRecord) -> None:
    """Take back a committed part of a table that is not published, its files too."""
    part_marker(directory, record.index).unlink(missing_ok=True)
    for file in record.stored:
        (directory / file.name).unlink(missing_ok=True)


def adopt_part(source: Path, directory: Path, record: PartRecord) -> None:
    """Take over a committed part of another table as it is, without a copy if the file system can."""
    for file in record.stored:
        target = directory / file.name
        with writing(target), suppress(FileExistsError):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source / file.name)
            except FileExistsError:
                raise
            except OSError:
                write_file(target, (source / file.name).read_bytes())
    write_part(directory, record, instead=True)


def read_slice(files: Sequence[tuple[Path, int]], start: int, stop: int) -> pl.DataFrame:
    """Return rows `start` to `stop` of files laid end to end (path and row count of each)."""
    frames, offset = [], 0
    for path, rows in files:
        first, last = max(start - offset, 0), min(stop - offset, rows)
        if first < last:
            whole = (first, last) == (0, rows)
            frames.append(
                pl.read_parquet(path, glob=False)
                if whole
                else pl.scan_parquet(path, glob=False).slice(first, last - first).collect()
            )
        offset += rows
    if frames:
        return pl.concat(frames, how="vertical")
    return pl.read_parquet(files[0][0], glob=False).clear() if files else pl.DataFrame()


def content_hash(parts: Sequence[PartRecord]) -> str:
    """Return the hash of a product, from the checksums of its rows' files in order and of its other files by name."""
    files = [f"{file.name.partition('/')[2]} {file.sha256}" for part in parts for file in part.attached]
    joined = "\n".join([*(part.files["rows"].sha256 for part in parts), *files])
    return hashlib.sha256(joined.encode()).hexdigest()[:20]


def _format_of(root: Path) -> int:
    try:
        return int((root / FORMAT_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except ValueError as error:
        raise StoreError(f"{root / FORMAT_FILE} must hold the number of the store's format: {error}") from error


def _load(parse: Callable[[bytes], Record], path: Path) -> Record | None:
    try:
        return parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        log.warning("%s cannot be read and does not count: %s", path, _fault(error))
        return None


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(place) for place in fault['loc']) or 'the file'}: {fault['msg']}"


def _present(directory: Path, part: PartRecord) -> bool:
    for record in part.stored:
        try:
            if (directory / record.name).stat().st_size != record.bytes:
                return False
        except OSError:
            return False
    return True


def _absent(directory: Path, parts: Sequence[PartRecord]) -> list[PartRecord]:
    """Return the parts that lack a file, or have one of another size."""
    if not isinstance(directory, ObjectPath):
        return [part for part in parts if not _present(directory, part)]
    sizes = directory.sizes()  # one request for a thousand files
    return [part for part in parts if any(sizes.get(record.name) != record.bytes for record in part.stored)]


def scratch_of(directory: Path) -> Path:
    """Return the scratch folder of a table: on this machine even if the table is not."""
    if isinstance(directory, ObjectPath):
        return cache_dir().joinpath("scratch", *directory.parts[1:], SCRATCH)
    return directory / SCRATCH


def _verified(directory: Path, part: PartRecord) -> bool:
    return not any(file_problem(directory / record.name, record) for record in part.stored)


def file_problem(path: Path, record: FileRecord) -> str | None:
    """Say what is wrong with a stored file, None if it is as it was written."""
    try:
        if (size := path.stat().st_size) != record.bytes:
            return f"has {size:,} bytes, expected {record.bytes:,}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if digest == record.sha256 else "is damaged: its checksum differs"


def _damage(directory: Path, folder: Path, listed: Sequence[FileRecord]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the folder of a product: names in its table's directory, and what is wrong with each."""
    for record in listed:
        if problem := file_problem(directory / record.name, record):
            yield record.name, problem
    known = {directory / record.name for record in listed}
    for path in sorted(folder.rglob("*")):
        if path not in known and (path.is_symlink() or not path.is_dir()):
            yield path.relative_to(directory).as_posix(), "is not listed in the manifest"


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []

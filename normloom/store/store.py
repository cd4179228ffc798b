"""The store: tables by stage key, what is published and what is being written (normloom.store.layout)."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from normloom.core.errors import StoreError, UsageError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.object_path import ObjectPath, place_of
from normloom.core.table import LEDGERS, FileRecord, Kind, Manifest, PartRecord, TableRef
from normloom.store.files import remove_tree, write_file, writing
from normloom.store.integrity import (
    CompleteTables,
    fault_of,
    file_problem,
    folder_problems,
    load_record,
    parts_without_files,
)
from normloom.store.layout import (
    BUILDS,
    CURRENT,
    FORMAT,
    FORMAT_FILE,
    LOCK,
    MANIFEST,
    PRODUCT,
    RELEASE,
    RUNNING,
    SUPERSEDED,
    format_of,
    scratch_of,
    stored_in,
)
from normloom.store.locks import lease
from normloom.store.parts import Writer, committed_part, committed_parts, is_committed

_State = tuple[int, int, int, int]  # of a file: device, number, size, time
_PARSED = 12  # manifests that are kept: that of a table of thousands of parts takes some ten megabytes


@dataclass(frozen=True)
class _Parsed:
    """A manifest as it was read or written, and its files by kind once they were asked for."""

    state: _State
    manifest: Manifest | None
    files: dict[Kind, list[tuple[Path, int]]] = field(default_factory=dict)


class Store:
    """A directory of tables, or objects below `s3://bucket/prefix`, shared by any number of readers and builds.

    Raises StoreError if a newer Normloom wrote it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = place_of(root)
        if (found := format_of(self.root)) > FORMAT:
            raise StoreError(
                f"the store {self.root} has format {found}, written by a newer Normloom; this version reads formats up "
                f"to {FORMAT}: upgrade Normloom, or give --store another directory"
            )
        self._verified: set[tuple[TableRef, Kind]] = set()
        self._verified_folders: set[Path] = set()
        self._whole: set[tuple[_State, str]] = set()  # files as they were when they were verified, and their checksums
        self._parsed: dict[Path, _Parsed] = {}
        self._complete = CompleteTables()
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
        manifest = self._manifest(directory)
        return manifest if manifest and self._complete.has_all(directory, manifest.parts) else None

    def _manifest(self, directory: Path) -> Manifest | None:
        """Return the manifest in a directory; one that has been read and not changed since is not parsed again."""
        path = directory / MANIFEST
        if isinstance(path, ObjectPath):
            return load_record(Manifest.model_validate_json, path)
        try:
            state = _state(path)
        except OSError:
            return None
        known = self._parsed.get(path)
        if known is None or known.state != state:
            known = _Parsed(state, load_record(Manifest.model_validate_json, path))
        self._keep(path, known)
        return known.manifest

    def _keep(self, path: Path, parsed: _Parsed) -> None:
        """Keep a manifest for as long as it is among those that were asked for last."""
        self._parsed.pop(path, None)
        while len(self._parsed) >= _PARSED:
            self._parsed.pop(next(iter(self._parsed)))
        self._parsed[path] = parsed

    def _files(self, directory: Path, manifest: Manifest, kind: Kind) -> list[tuple[Path, int]]:
        """Return the files of a table; of a manifest that is kept, their paths are made once."""
        known = self._parsed.get(directory / MANIFEST)
        if known is None or known.manifest is not manifest:
            return manifest.files(directory, kind)
        if kind not in known.files:
            known.files[kind] = manifest.files(directory, kind)
        return [*known.files[kind]]

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
        if key is None or self.published(system, stage, key):
            return None
        try:
            manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
        except FileNotFoundError:  # it is not there
            return None
        except ValidationError as error:
            what = f"its manifest cannot be read ({fault_of(error)}): damaged, or another version of Normloom wrote it"
        else:
            parts = parts_without_files(directory, manifest.parts)
            what = f"files of its part {parts[0].index} are missing or cut short"
        return f"table {system}/{stage}/{key}: {what}; build {system} again to make what is missing"

    def scan(self, ref: TableRef, kind: Kind = "rows") -> pl.LazyFrame:
        """Return the rows of a table (or what it dropped or quarantined), lazily."""
        files = [path for path, _ in self.files(ref, kind)]
        return pl.scan_parquet(files, glob=False) if files else pl.LazyFrame(schema=LEDGERS[kind])

    def files(self, ref: TableRef, kind: Kind = "rows") -> list[tuple[Path, int]]:
        """Return the files of a table with their row counts, in row order.

        Their checksums are verified the first time; raises StoreError naming a file that is not as it was written.
        """
        manifest, directory = self.manifest(ref), self.table_directory(ref)
        if (ref, kind) not in self._verified:
            for part in manifest.parts:
                record = part.files[kind]
                if record.name and (problem := self._problem(directory, record)):
                    raise StoreError(
                        f"table {ref}, part {part.index}: {record.name} {problem}; "
                        f"run normloom verify {ref.system} --repair, then build again"
                    )
            self._verified.add((ref, kind))
        return self._files(directory, manifest, kind)

    def holds(self, directory: Path, part: PartRecord) -> bool:
        """Return whether a part is committed as recorded and its files are as they were written."""
        return is_committed(directory, part) and not any(self._problem(directory, record) for record in part.stored)

    def _problem(self, directory: Path, record: FileRecord) -> str | None:
        """Say what is wrong with a file; one that has been read and not changed since is not read again."""
        if isinstance(directory, ObjectPath):
            return file_problem(directory, record)
        try:
            seen = (_state(f"{directory}/{record.name}"), record.checksum)  # of thousands, without an object for each
        except OSError:
            return file_problem(directory, record)
        if seen not in self._whole:
            if problem := file_problem(directory, record):
                return problem
            self._whole.add(seen)
        return None

    def checksums(self, ref: TableRef) -> list[tuple[Path, str]]:
        """Return the files of a table with the checksums that its manifest has, in row order; none if it is gone."""
        directory = self.table_directory(ref)
        manifest = self._manifest(directory)
        if manifest is None:
            return []
        files = self._files(directory, manifest, "rows")
        return [(path, part.files["rows"].checksum) for (path, _), part in zip(files, manifest.parts, strict=True)]

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
            for name, problem in folder_problems(directory, folder, listed):
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

    def require(self, system: str | None = None) -> None:
        """Raise UsageError if the store has no tables of a system, of any if none is named."""
        there = self.systems()
        if not there:
            raise UsageError(f"no tables in {self.root} yet: run normloom build first, or name another store")
        if system is not None and system not in there:
            close = get_close_matches(system, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"available: {', '.join(there)}"
            raise UsageError(f"unknown system {system!r} in {self.root}; {hint}")

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
        found = {index: committed_part(directory, index, verify=verify) for index in committed_parts(directory)}
        return {index: record for index, record in found.items() if record}

    @contextmanager
    def lock(self, directory: Path, writer: Writer, *, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the right to write a table; `waiting` is called once, with its holder, if another process has it.

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
            own = path.with_name(f".{RUNNING}-{token}")
            try:
                with lease.held(own, token):
                    lease.wait_until_free(path)  # of gc
                    yield
            finally:
                own.unlink(missing_ok=True)
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a")
        self._write_format()
        with handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    def _write_format(self) -> None:
        if format_of(self.root) < FORMAT:
            write_file(self.root / FORMAT_FILE, f"{FORMAT}\n".encode())

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, which publishes the table, and point to it as the newest.

        Files that it does not name (of a writer that was killed) go: who reads `rows-*.parquet` gets the table.
        Raises StoreError if another build has taken the table over.
        """
        directory = self.directory(manifest.system, manifest.stage, manifest.key)
        named = {record.name.partition("/")[0] for part in manifest.parts for record in part.stored}
        stray = [directory / name for name in stored_in(directory) if name not in named]
        content = manifest.model_dump_json(indent=1).encode()
        path = directory / MANIFEST
        if isinstance(path, ObjectPath):
            self._publish_if(path, content)  # only then may anything go: these are others' files if this comes late
        for one in stray:
            remove_tree(one) if one.name.startswith(PRODUCT) else one.unlink(missing_ok=True)
        if not isinstance(path, ObjectPath):
            remove_tree(directory / RELEASE)  # of files that are not these
            write_file(path, content)
            self._keep(path, _Parsed(_state(path), manifest))  # who reads the table next does not parse it
        remove_tree(scratch_of(directory))
        self.point(manifest.ref)

    def _publish_if(self, path: ObjectPath, content: bytes) -> None:
        """Write a manifest unless another build has since this one began; raises StoreError then."""
        found = path.tag_of()
        if held := self._leases.get(path.parent):
            held.require()  # after the look: what is written later than this makes the put fail
        if not path.replace_if(content, found[1] if found else None):
            raise StoreError(f"another build has published the table in {path.parent}: this build stops")

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


def _state(path: str | Path) -> _State:
    found = os.stat(path)  # noqa: PTH116  # also of a name without a path object
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []

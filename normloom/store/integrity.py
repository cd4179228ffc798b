"""Whether records and files are as they were written."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO, FileIO
from pathlib import Path
from typing import TypeVar

from blake3 import blake3
from pydantic import ValidationError

from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import FileRecord, PartRecord

Record = TypeVar("Record")
_SETTLED = 2_000_000_000  # nanoseconds after which a change is sure to give a directory another time
_AT_ONCE = 2**18  # bytes read with one call, which stay in the processor's cache until they are hashed

log = logging.getLogger("normloom.store")


def load_record(parse: Callable[[bytes], Record], path: Path) -> Record | None:
    """Return the record in a file, None if the file is missing or cannot be read."""
    return parsed(parse, content_of(path), path)


def content_of(path: Path | str) -> bytes | None:
    """Return what a file holds, None if it is missing; a file of this machine may be given by name."""
    try:
        if isinstance(path, ObjectPath):
            return path.read_bytes()
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # see `size_of`
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parsed(parse: Callable[[bytes], Record], content: bytes | None, path: Path) -> Record | None:
    """Return a record as it is written, None if there is none, it is emptied (taken back) or cannot be read."""
    try:
        return parse(content) if content else None
    except ValidationError as error:
        log.warning("%s cannot be read and does not count: %s", path, fault_of(error))
        return None


def fault_of(error: ValidationError) -> str:
    """Return the first fault of a record: the field and what is wrong with it."""
    fault = error.errors()[0]
    return f"{'.'.join(str(place) for place in fault['loc']) or 'the file'}: {fault['msg']}"


def has_files(directory: Path, part: PartRecord) -> bool:
    """Return whether all files of a part are there and have the right sizes."""
    for record in part.stored:
        try:
            if size_of(directory, record) != record.bytes:
                return False
        except OSError:
            return False
    return True


def size_of(directory: Path, record: FileRecord) -> int:
    """Return the size of a file of a part: tables have thousands of them, so without a path object for each."""
    if isinstance(directory, ObjectPath):
        return (directory / record.name).stat().st_size
    return os.stat(f"{directory}/{record.name}").st_size  # noqa: PTH116  # see above


def parts_without_files(directory: Path, parts: Sequence[PartRecord]) -> list[PartRecord]:
    """Return the parts that lack a file, or have one of another size."""
    if not isinstance(directory, ObjectPath):
        return [part for part in parts if not has_files(directory, part)]
    sizes = directory.sizes()  # one request for a thousand files
    return [part for part in parts if any(sizes.get(record.name) != record.bytes for record in part.stored)]


class CompleteTables:
    """Tables of which all files were there: they are looked for again if the table's directory has changed."""

    def __init__(self) -> None:
        self._changed: dict[Path, int] = {}  # by directory: when it changed last, in nanoseconds

    def has_all(self, directory: Path, parts: Sequence[PartRecord]) -> bool:
        """Return whether all files of a table's parts are there, with their sizes when they were looked for."""
        if isinstance(directory, ObjectPath):
            return not parts_without_files(directory, parts)
        try:
            changed = os.stat(directory).st_mtime_ns  # noqa: PTH116  # see `size_of`
        except OSError:  # removed meanwhile
            return False
        if self._changed.get(directory) == changed:
            return True
        complete = not parts_without_files(directory, parts)
        if complete and time.time_ns() - changed > _SETTLED:
            self._changed[directory] = changed
        return complete


def _opened(directory: Path, record: FileRecord) -> FileIO | BytesIO:
    """Open a file of a part to be read whole."""
    if isinstance(directory, ObjectPath):
        return BytesIO((directory / record.name).read_bytes())
    return open(f"{directory}/{record.name}", "rb", buffering=0)  # noqa: PTH123  # see `size_of`


def is_whole(directory: Path, part: PartRecord) -> bool:
    """Return whether all files of a part have the right checksums."""
    return not any(file_problem(directory, record) for record in part.stored)


def file_problem(directory: Path, record: FileRecord) -> str | None:
    """Say what is wrong with a stored file, None if it is as it was written."""
    try:
        with _opened(directory, record) as file:
            size, checksum = _read(file, blake3() if record.blake3 else hashlib.sha256())
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size != record.bytes:
        return f"has {size:,} bytes, expected {record.bytes:,}"
    return None if checksum == record.checksum else "is damaged: its checksum differs"


class _Buffer(threading.local):
    """Memory that a thread reads files into: new memory for each file costs a tenth of the time."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_AT_ONCE))


_BUFFER = _Buffer()


def _read(file: FileIO | BytesIO, hasher: blake3 | hashlib._Hash) -> tuple[int, str]:
    """Return the size and the checksum of an open file."""
    size, memory = 0, _BUFFER.memory
    while count := file.readinto(memory):
        hasher.update(memory[:count])
        size += count
    return size, hasher.hexdigest()


def folder_problems(directory: Path, folder: Path, listed: Sequence[FileRecord]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the folder of a product: names in its table's directory, and what is wrong with each."""
    for record in listed:
        if problem := file_problem(directory, record):
            yield record.name, problem
    known = {directory / record.name for record in listed}
    for path in sorted(folder.rglob("*")):
        if path not in known and (path.is_symlink() or not path.is_dir()):
            yield path.relative_to(directory).as_posix(), "is not listed in the manifest"

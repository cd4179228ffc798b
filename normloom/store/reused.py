"""The records of parts that a table took over from another: all in one file, which is written and flushed once.

A part with a marker of its own is what that says. The file has a line of JSON for each part. In object storage each
part has a marker.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from pathlib import Path

from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import PartRecord
from normloom.store.files import write_file
from normloom.store.layout import REUSED

_INDEX = re.compile(rb'\{"index":(\d+),')


def reused_records(directory: Path) -> Mapping[int, bytes]:
    """Return the records of the parts that the table in a directory took over, as they are written, by index."""
    if isinstance(directory, ObjectPath):
        return {}
    path = f"{directory}/{REUSED}"
    try:
        found = os.stat(path)  # noqa: PTH116  # for each part that is made
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return _read(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=4)
def _read(path: str, state: tuple[int, int, int]) -> Mapping[int, bytes]:  # noqa: ARG001  # another file is read again
    found = ((_INDEX.match(line), line) for line in Path(path).read_bytes().splitlines())
    return {int(index[1]): line for index, line in found if index}


def write_reused(directory: Path, parts: Iterable[PartRecord]) -> None:
    """Add records to those of the parts that the table in a directory took over; they are on the disk after that."""
    _write(directory, {**reused_records(directory), **{part.index: line_of(part) for part in parts}})


def drop_reused(directory: Path, parts: Set[int]) -> None:
    """Take the records of some parts out of those that the table in a directory took over."""
    there = reused_records(directory)
    if parts & there.keys():
        _write(directory, {index: record for index, record in there.items() if index not in parts})


def _write(directory: Path, records: Mapping[int, bytes]) -> None:
    write_file(directory / REUSED, b"".join(b"%s\n" % record for record in records.values()))


def line_of(part: PartRecord) -> bytes:
    """Return the record of a part as it is written."""
    return part.model_dump_json().encode()

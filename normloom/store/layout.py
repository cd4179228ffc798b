"""Where things lie in a store: one directory per stage key, immutable once its manifest is there.

    <root>/format                                                   the number of this layout
    <root>/<system>/<stage>/<key>/rows-00000-WRITER.parquet         what the stage made
                                  dropped-00000-WRITER.parquet       what the method took out, if it did
                                  quarantined-00000-WRITER.parquet   what checks and errors took out, if they did
                                  part-00000.json                    written last: the part counts
                                  reused.jsonl                       the same for all parts taken over from a table
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
File names carry their writer, so that a process which outlives its build never touches its successor's files. The two
names that writers share, `part-00000.json` and `manifest.json`, are in object storage written by puts that hold only
if nobody else has written meanwhile: a writer that slept past its lease changes nothing (docs/storage.md).
"""

from __future__ import annotations

import os
from pathlib import Path

from normloom.core.errors import StoreError
from normloom.core.machine.cache import cache_dir
from normloom.core.machine.object_path import ObjectPath

MANIFEST = "manifest.json"
REUSED = "reused.jsonl"
CURRENT = "current"
LOCK = "lock"
SUPERSEDED = "superseded"
BUILDS = "builds"
RUNNING = "running"
RELEASE = "release"
SCRATCH = "scratch"
MARKERS = "part-*.json"
PRODUCT = "files-"  # begins the name of a folder with files of a product
FORMAT_FILE = "format"
FORMAT = 6  # of stores and their records; records of 1 (without a number) to 5 are read as they are


def format_of(root: Path) -> int:
    """Return the number of a store's format."""
    try:
        return int((root / FORMAT_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except ValueError as error:
        raise StoreError(f"{root / FORMAT_FILE} must hold the number of the store's format: {error}") from error


def scratch_of(directory: Path) -> Path:
    """Return the scratch folder of a table: on this machine even if the table is not."""
    if isinstance(directory, ObjectPath):
        return cache_dir().joinpath("scratch", *directory.parts[1:], SCRATCH)
    return directory / SCRATCH


def part_marker(directory: Path, index: int) -> Path:
    """Return the file that commits a part."""
    return directory / marker_name(index)


def marker_name(index: int) -> str:
    """Return the name of the file that commits a part."""
    return f"part-{index:05d}.json"


def index_of(marker: Path) -> int:
    """Return the part that a file commits."""
    return int(marker.stem.removeprefix("part-"))


def stored_in(directory: Path) -> list[str]:
    """Return the names of all files and folders of parts in a directory."""
    if isinstance(directory, ObjectPath):
        return [path.name for pattern in ("*.parquet", f"{PRODUCT}*") for path in directory.glob(pattern)]
    names = os.listdir(directory)  # noqa: PTH208  # thousands, without an object for each
    return [name for name in names if name.endswith(".parquet") or name.startswith(PRODUCT)]

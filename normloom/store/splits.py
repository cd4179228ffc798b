"""The rows of a table in a folder for each split.

    rows-00000.parquet                     a file of the table whose rows are of one split: the same file
    rows-00001-6c1a0e52f3b94d78.parquet    those of one split in another file, with its checksum

The next release, most of whose files are the same, links such pieces too, if they still have their checksum. Object
storage has no links, and names without one: a release there may be written twice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from blake3 import blake3

from normloom.core.table import FileRecord, Manifest
from normloom.store.files import write_file, write_together

SPLIT = "split"
_FOLDER = re.compile(r"\w[\w.-]*")  # what the name of a split must be to name a folder
_PIECE = re.compile(r"rows-(\d+)-([0-9a-f]+)")

Pieces = Mapping[str, Mapping[str, Path]]  # of a file by its checksum: the piece of each split


def write_splits(manifest: Manifest, table: Path, folder: Path, *, before: Pieces | None) -> None:
    """Write a table by split, with links to the pieces that are there from `before`; None if nothing can be linked.

    A table without splits, or with one that can name no folder, is its files without a folder.
    """
    files = _files(manifest)
    splits = [_splits(table / file.name) for file in files]
    by_split = all(splits)
    for index, (file, names) in enumerate(zip(files, splits, strict=True)):
        source, stem = table / file.name, f"rows-{index:05d}"
        if not by_split or len(names) == 1:
            _link(source, folder / (names[0] if by_split else "") / f"{stem}.parquet")
        elif before is None:
            _write({folder / name / f"{stem}.parquet": rows for name, rows in _pieces(source).items()})
        elif (pieces := before.get(file.checksum, {})).keys() == set(names) and all(map(_whole, pieces.values())):
            for name, path in pieces.items():
                _link(path, folder / name / f"{stem}-{_checksum_in(path)}.parquet")
        else:
            written = _pieces(source).items()
            _write({folder / name / f"{stem}-{_checksum(rows)}.parquet": rows for name, rows in written})


def pieces_of(manifest: Manifest, folder: Path) -> Pieces:
    """Return the pieces of a table's files that are in the folder of its release."""
    files = _files(manifest)
    found: dict[str, dict[str, Path]] = {}
    for path in folder.glob("*/*.parquet"):
        if (named := _PIECE.fullmatch(path.stem)) and int(named[1]) < len(files):
            found.setdefault(files[int(named[1])].checksum, {})[path.parent.name] = path
    return found


def _files(manifest: Manifest) -> Sequence[FileRecord]:
    """Return the files of a table that have rows; one if none has."""
    files = [part.files["rows"] for part in manifest.parts]
    return [file for file in files if file.rows] or files[:1]


def _splits(path: Path) -> list[str]:
    """Return the splits of a file's rows, none if it has no such column or one that names no folder."""
    if SPLIT not in pl.scan_parquet(path, glob=False).collect_schema():
        return []
    names = pl.read_parquet(path, columns=[SPLIT], glob=False)[SPLIT].unique().to_list()
    return names if all(isinstance(name, str) and _FOLDER.fullmatch(name) for name in names) else []


def _pieces(path: Path) -> dict[str, bytes]:
    """Return the rows of each split of a file, as files."""
    found = {}
    for (split,), rows in (
        pl.read_parquet(path, glob=False).partition_by(SPLIT, as_dict=True, maintain_order=True).items()
    ):
        rows.write_parquet(buffer := io.BytesIO(), compression="zstd", statistics=True)
        found[str(split)] = buffer.getvalue()
    return found


def _checksum(content: bytes) -> str:
    return blake3(content).hexdigest()[:16]


def _checksum_in(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _whole(path: Path) -> bool:
    return _checksum(path.read_bytes()) == _checksum_in(path)


def _write(contents: Mapping[Path, bytes]) -> None:
    for path in contents:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_together(contents)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it if the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        write_file(target, source.read_bytes())

"""The released table of a system where people look for it: laid out by split, under a path that stays.

    <root>/<system>/<stage>/<key>/release/train/rows-00000.parquet     a folder for each split
    <root>/<system>/latest -> <stage>/<key>/release                    of the newest finished build

`datasets`, polars and DuckDB read the folders as they are, and splits stay splits. The layout is written under a
temporary name and renamed, and the link is replaced in one step: at any moment `latest` is a whole release. In object
storage it is an object that names the folder, `release-CONTENT`: who writes there late writes the same. It moves
before the build's lock is written, so a build that was killed before it moved is no finished build, and the same
command finishes it.
"""

from __future__ import annotations

import io
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import Manifest
from normloom.store.files import sync_directory, write_file, writing
from normloom.store.layout import RELEASE
from normloom.store.store import Store

LATEST = "latest"
SPLIT = "split"
_FOLDER = re.compile(r"\w[\w.-]*")  # what the name of a split must be to name a folder


def show_latest(store: Store, manifest: Manifest) -> Path:
    """Lay out a published table by split, let the system's `latest` point to it, and return that path.

    Raises StoreError if it cannot be written.
    """
    table = store.table_directory(manifest.ref)
    laid_out = table / RELEASE
    latest = store.root / manifest.system / LATEST
    if isinstance(latest, ObjectPath):
        laid_out = table / f"{RELEASE}-{manifest.content}"
        complete = table / f".{laid_out.name}"
        if not complete.is_file():
            _fill(manifest, table, laid_out)
            write_file(complete, b"")
        write_file(latest, Path(manifest.stage, manifest.key, laid_out.name).as_posix().encode())
        return laid_out
    with writing(latest):
        if not laid_out.is_dir():
            _lay_out(manifest, table, laid_out)
        _point(latest, Path(manifest.stage, manifest.key, RELEASE))
    return latest


def released_key(store: Store, system: str) -> tuple[str, str] | None:
    """Return stage and key of the table that `latest` shows, None if the system has released none."""
    shown = _shown(store, system)
    return (shown.parts[0], shown.parts[1]) if shown else None


def is_shown(store: Store, system: str) -> bool:
    """Tell whether `latest` leads to a release that is there."""
    shown = _shown(store, system)
    return shown is not None and (store.root / system / shown).is_dir()


def _shown(store: Store, system: str) -> Path | None:
    """Return where `latest` leads, from the folder of the system: stage, key and the folder of the release."""
    latest = store.root / system / LATEST
    try:
        shown = Path(latest.read_text()) if isinstance(latest, ObjectPath) else latest.readlink()
    except OSError:
        return None
    return shown if len(shown.parts) == 3 else None  # noqa: PLR2004  # as above


def _lay_out(manifest: Manifest, table: Path, laid_out: Path) -> None:
    """Write the folders of the splits; a table without splits is files without a folder."""
    temporary = table / f".{RELEASE}.{secrets.token_hex(3)}.tmp"
    try:
        _fill(manifest, table, temporary)
        sync_directory(temporary)
        _rename(temporary, laid_out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(manifest: Manifest, table: Path, folder: Path) -> None:
    files = [path for path, rows in manifest.files(table) if rows] or [manifest.files(table)[0][0]]
    splits = [_splits(path) for path in files]
    for index, (path, names) in enumerate(zip(files, splits, strict=True)):
        for split, rows in _pieces(path, names if all(splits) else []):
            file = folder / split / f"rows-{index:05d}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, path, rows)


def _splits(path: Path) -> list[str]:
    """Return the splits of a file's rows, none if it has no such column or one that names no folder."""
    if SPLIT not in pl.scan_parquet(path, glob=False).collect_schema():
        return []
    names = pl.read_parquet(path, columns=[SPLIT], glob=False)[SPLIT].unique(maintain_order=True).to_list()
    return names if all(isinstance(name, str) and _FOLDER.fullmatch(name) for name in names) else []


def _pieces(path: Path, splits: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame | None]]:
    """Yield the folders that a file's rows go to, with the rows if they are not the whole file."""
    if len(splits) < 2:  # noqa: PLR2004  # of one split, or of none
        yield next(iter(splits), ""), None
        return
    for name, rows in pl.read_parquet(path, glob=False).partition_by(SPLIT, as_dict=True, maintain_order=True).items():
        yield str(name[0]), rows


def _write(file: Path, source: Path, rows: pl.DataFrame | None) -> None:
    """Write rows, or let the file be the source itself, without a copy if the file system can do so."""
    if rows is not None:
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd", statistics=True)
        write_file(file, buffer.getvalue())
        return
    try:
        file.hardlink_to(source)
        sync_directory(file.parent)
    except OSError:
        write_file(file, source.read_bytes())


def _rename(temporary: Path, laid_out: Path) -> None:
    """Move a folder to its place; one that another build of the same table put there stays."""
    try:
        temporary.rename(laid_out)
    except OSError:
        if not laid_out.is_dir():
            raise
    sync_directory(laid_out.parent)


def _point(latest: Path, target: Path) -> None:
    """Let the link lead to another folder, in one step."""
    if latest.is_symlink():
        if latest.readlink() == target:
            return
    elif latest.is_dir():  # a file is what object storage has instead, copied here
        raise StoreError(
            f"{latest} is a folder (of a copy of the store that followed links?), and builds keep a link there: "
            "remove it and run the same command again"
        )
    temporary = latest.with_name(f".{LATEST}.{secrets.token_hex(3)}.tmp")
    temporary.symlink_to(target)
    temporary.replace(latest)
    sync_directory(latest.parent)

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

import secrets
import shutil
from pathlib import Path

from normloom.core.errors import StoreError
from normloom.core.machine.object_path import ObjectPath
from normloom.core.table import Manifest
from normloom.store.files import sync_directory, write_file, writing
from normloom.store.layout import RELEASE
from normloom.store.splits import Pieces, pieces_of, write_splits
from normloom.store.store import Store

LATEST = "latest"


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
            write_splits(manifest, table, laid_out, before=None)
            write_file(complete, b"")
        write_file(latest, Path(manifest.stage, manifest.key, laid_out.name).as_posix().encode())
        return laid_out
    with writing(latest):
        if not laid_out.is_dir():
            _lay_out(manifest, table, laid_out, before=_shown_pieces(store, manifest.system))
        _point(latest, Path(manifest.stage, manifest.key, RELEASE))
    return latest


def released_key(store: Store, system: str) -> tuple[str, str] | None:
    """Return stage and key of the table that `latest` shows, None if the system has released none."""
    shown = _shown(store, system)
    return (shown.parts[0], shown.parts[1]) if shown else None


def is_shown(store: Store, system: str) -> bool:
    """Return whether `latest` leads to a release that is there."""
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


def _shown_pieces(store: Store, system: str) -> Pieces:
    """Return the pieces that the release before has."""
    shown = _shown(store, system)
    manifest = store.published(system, *shown.parts[:2]) if shown else None
    return pieces_of(manifest, store.root / system / shown) if shown and manifest else {}


def _lay_out(manifest: Manifest, table: Path, laid_out: Path, *, before: Pieces) -> None:
    """Write the folders of the splits; a table without splits is files without a folder."""
    temporary = table / f".{RELEASE}.{secrets.token_hex(3)}.tmp"
    try:
        write_splits(manifest, table, temporary, before=before)
        for folder in (*temporary.glob("*/"), temporary):
            sync_directory(folder)
        _rename(temporary, laid_out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
            f"{latest} is a folder, but must be a link (was the store copied with links followed?): "
            "remove it and rerun the command"
        )
    temporary = latest.with_name(f".{LATEST}.{secrets.token_hex(3)}.tmp")
    temporary.symlink_to(target)
    temporary.replace(latest)
    sync_directory(latest.parent)

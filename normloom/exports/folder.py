"""The folder of an export: written under a hidden name, renamed when it is whole, and replaced only if it is ours.

Every file is listed in SHA256SUMS (`sha256sum --check SHA256SUMS` verifies a copy). A folder is an earlier export if
it has this list and the record of the export, and nothing else than the files listed, as they were written.
"""

from __future__ import annotations

import fcntl
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from normloom.core.errors import UsageError
from normloom.store.files import sync_directory, writing

SUMS = "SHA256SUMS"
MARKER = "normloom-export.json"
_writing = partial(writing, advice="name a folder that can be written", refusal=UsageError)
_WRITING = ".writing"  # held by the process that writes a folder; it is removed before the folder gets its name


@contextmanager
def exported_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder to write, which becomes `target`, whole, at the end; nothing is left of a failed one.

    Raises UsageError if `target` exists and is no empty folder, unless it is an earlier export and `overwrite` is set.
    """
    require_replaceable(target, overwrite=overwrite)
    _writable_parent(target)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    with _writing(target):
        temporary.mkdir()
    try:
        with (temporary / _WRITING).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield temporary
            _write_sums(temporary)
            (temporary / _WRITING).unlink()
            require_replaceable(target, overwrite=overwrite)
            _take_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_replaceable(target: Path, *, overwrite: bool) -> None:
    """Raise UsageError unless an export may be written to `target`."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"{target} is not a folder: name a new one")
    if not any(target.iterdir()):
        return
    foreign = _foreign(target)
    if foreign:
        raise UsageError(f"{target} is not an unchanged earlier export: {foreign}; name a new folder")
    if not overwrite:
        raise UsageError(f"{target} is an earlier export: replace it with --overwrite, or name a new folder")


def listed(folder: Path) -> dict[str, str]:
    """Return the files that a folder lists, with their SHA-256; none if it has no list."""
    try:
        return parsed_sums((folder / SUMS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def parsed_sums(text: str) -> dict[str, str]:
    """Return the files of a list in the format of sha256sum, with their digests."""
    pairs = (line.partition("  ") for line in text.splitlines())
    return {name: digest for digest, _, name in pairs}


def _foreign(target: Path) -> str | None:
    """Say what is in a folder that no export wrote, None if nothing is."""
    known = listed(target)
    if MARKER not in known:
        return f"it has no {MARKER} with a {SUMS}"
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in known and name != SUMS):
            return f"{name} was put there by someone else"
        if name in known and (not path.is_file() or _digest(path) != known[name]):
            return f"{name} has been changed"
    return None


def _writable_parent(target: Path) -> None:
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)


def _sweep(target: Path) -> None:
    """Remove what killed exports to the same folder left: folders that no process holds."""
    for path in target.parent.glob(f".{target.name}.*.partial"):
        with suppress(OSError), (path / _WRITING).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _WRITING)
    lines = (f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _take_place(temporary: Path, target: Path) -> None:
    """Rename the folder into its place; an earlier export steps aside and goes file by file, as it lists them."""
    with _writing(target):
        aside = None
        if target.exists() and any(target.iterdir()):
            aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
            target.rename(aside)
        try:
            temporary.rename(target)
        except OSError:
            if aside:
                aside.rename(target)
            raise
        sync_directory(target.parent)
    if aside:
        _remove_listed(aside)


def _remove_listed(folder: Path) -> None:
    known = {*listed(folder), SUMS}
    for path in list(folder.rglob("*")):
        if path.relative_to(folder).as_posix() in known:
            path.unlink()
    inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in [*inner, folder]:
        with suppress(OSError):  # a file that came in meanwhile stays
            path.rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

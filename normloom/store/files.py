"""The small set of operations by which a store is changed: what each is on a disk, and in object storage.

A file is put whole, or put if absent; a tree is removed; a file is held by one process at a time (`Store.lock`,
`normloom.store.locks.lease`). Reading, listing and single removals are those of the paths themselves.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from normloom.core.errors import NormloomError, StoreError
from normloom.core.machine.object_path import ObjectPath

Content = Callable[[BinaryIO], None]  # writes a file


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash."""
    write_together({path: content})


def write_together(files: Mapping[Path, bytes | Content]) -> None:
    """Write files of one directory, each so that it is there whole or not at all, also after a crash.

    All of them are created before the first is flushed, and flushed before the first gets its name: a file that is
    created after a flush costs the file system a millisecond, others a tenth of that.
    """
    token = secrets.token_hex(4)  # a process id is only one machine's own
    temporary: dict[Path, str] = {}
    try:
        for path, content in files.items():
            if isinstance(path, ObjectPath):
                path.put(_whole(content))
                continue
            with writing(path):
                temporary[path] = f"{path.parent}/.{path.name}.{token}.tmp"
                with open(temporary[path], "wb") as handle:  # noqa: PTH123  # thousands, without an object for each
                    handle.write(content) if isinstance(content, bytes) else content(handle)
        for path, name in temporary.items():
            with writing(path):
                _flush(name)
        for path, name in temporary.items():
            with writing(path):
                os.replace(name, path)  # noqa: PTH105  # as above
        for parent in {path.parent for path in temporary}:
            with writing(parent):
                sync_directory(parent)
    except BaseException:
        for name in temporary.values():
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108  # as above
        raise


def _whole(content: bytes | Content) -> bytes:
    if isinstance(content, bytes):
        return content
    content(file := io.BytesIO())
    return file.getvalue()


def _flush(path: str | os.PathLike[str]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_new(path: Path, content: bytes) -> bool:
    """Write a file unless there is one; return whether it was written. Of several that try one does."""
    if isinstance(path, ObjectPath):
        return path.create(content)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(temporary, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
    return True


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; one that is not there is removed already."""
    if isinstance(path, ObjectPath):
        for one in path.rglob("*"):
            one.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Let the names in a directory survive a crash; those of objects do."""
    if not isinstance(path, ObjectPath):
        _flush(path)


@contextmanager
def writing(
    path: Path,
    *,
    advice: str = "give --store a directory that can be written",
    refusal: type[NormloomError] = StoreError,
) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence that says what to do: `advice`, unless space is short."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space and rerun the command"
            advice += ", finished parts are kept" if refusal is StoreError else ""
        raise refusal(f"cannot write {path}: {error.strerror or error}; {advice}") from error

"""SHA-256 of large files, remembered so that a second look costs no reading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from normloom.core.machine.cache import cache_dir


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file (64 hex digits), remembered by path, size and time of change."""
    state = path.stat()
    known = _remembered()
    seen = [state.st_size, state.st_mtime_ns]
    entry = known.get(str(path.resolve()))
    if entry is not None and entry[:2] == seen:
        return str(entry[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _remember({**_remembered(), str(path.resolve()): [*seen, digest]})
    return digest


def joint_digest(paths: list[Path]) -> str:
    """Return one SHA-256 over the names and contents of several files, whatever their order."""
    joint = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        joint.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return joint.hexdigest()


def _memory() -> Path:
    return cache_dir() / "digests.json"


def _remembered() -> dict[str, list[int | str]]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_memory().read_text())
        if isinstance(found, dict):
            return found
    return {}


def _remember(entries: dict[str, list[int | str]]) -> None:
    # Two writers may each lose the other's entry: it is computed again. A torn file cannot appear.
    with contextlib.suppress(OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=_memory().parent, prefix=".digests-")
        with os.fdopen(handle, "w") as file:
            json.dump(entries, file)
        Path(name).replace(_memory())

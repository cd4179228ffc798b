"""Copies of remote files, each under the digest of its content, so that one in use is never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from normloom.core.machine.cache import cache_dir


@dataclass(frozen=True)
class Download:
    """A remote file. `fetch(target, state)` writes it to the target unless it still is in the state given.

    It returns the state it is in, such as an ETag, or None if that is unknown; then it has written the file.
    """

    address: str
    filename: str
    fetch: Callable[[Path, str | None], str | None]


def keep(download: Download) -> Path:
    """Return the local copy of a remote file, fetched if it is not there or has changed."""
    folder = cache_dir() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / f"{hashlib.sha256(download.address.encode()).hexdigest()[:32]}.json"
    state, copy = _known(index)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
        target = Path(scratch) / "content"
        new = download.fetch(target, state)
        if not target.exists() and copy is not None:
            return copy
        with target.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        copy = folder / digest[:32] / download.filename
        copy.parent.mkdir(exist_ok=True)
        target.replace(copy)
        told = Path(scratch) / "index"
        told.write_text(json.dumps({"state": new, "copy": str(copy.relative_to(folder))}), encoding="utf-8")
        told.replace(index)
    return copy


def _known(index: Path) -> tuple[str | None, Path | None]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(index.read_text(encoding="utf-8"))
        copy = index.parent / told["copy"]
        if told["state"] and copy.is_file():
            return told["state"], copy
    return None, None

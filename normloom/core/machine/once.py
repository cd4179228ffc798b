"""Files made once in the cache, however many processes ask for them."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target`, a file or a directory, letting `make` write it if there is none.

    One process makes it and the others wait; one that dies leaves nothing under the final name.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            draft = target.with_name(f".draft-{target.name}")
            _clear(draft)  # of a process that died
            make(draft)
            draft.rename(target)
    return target


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

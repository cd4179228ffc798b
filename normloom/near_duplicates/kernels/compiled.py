"""How the functions of this folder are compiled, and how long that is kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy.typing as npt

from normloom.core.machine.cache import cache_dir

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function, and keep what was compiled until any file of this folder changes.

    numba itself keeps it until the function's own file changes, whatever becomes of functions of other files that
    are compiled into it.
    """
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(KEPT_IN)
    try:
        kernel = numba.njit(cache=True, nogil=True)(function)
    finally:
        numba.config.CACHE_DIR = before
    _keep_one_at_a_time(kernel)
    return cast("Function", kernel)


def _keep_one_at_a_time(kernel: Any) -> None:
    """Let no two processes keep what they compiled at once.

    numba numbers the files of a function, one for each combination of types. Two processes may take the same number:
    then the file of one is what the index has for the types of the other, and is run for them.
    """
    files = getattr(getattr(kernel, "_cache", None), "_cache_file", None)  # numba has no public name for it
    if files is None:
        return
    save = files.save

    def locked(key: Any, data: Any) -> None:
        with (KEPT_IN / "lock").open("w") as lock:
            with suppress(OSError):  # some shared file systems lock nothing
                fcntl.flock(lock, fcntl.LOCK_EX)
            save(key, data)

    files.save = locked


def kept_in(folder: Path) -> Path:
    """Return where what is compiled from the files in a folder is kept."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR, digest)
    return (folder / "__pycache__" if os.access(folder, os.W_OK) else cache_dir() / "numba") / digest


KEPT_IN = kept_in(Path(__file__).parent)

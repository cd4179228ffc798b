"""How the functions of this folder are compiled, and how long that is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_KEPT_IN)
    try:
        return cast("Function", numba.njit(cache=True, nogil=True)(function))
    finally:
        numba.config.CACHE_DIR = before


def kept_in(folder: Path) -> Path:
    """Return where what is compiled from the files in a folder is kept."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR, digest)
    return (folder / "__pycache__" if os.access(folder, os.W_OK) else cache_dir() / "numba") / digest


_KEPT_IN = kept_in(Path(__file__).parent)

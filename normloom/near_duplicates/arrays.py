"""Arrays that grow in place, so that large ones are never held twice, and memory that is given back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from normloom.near_duplicates.kernels.compiled import Array

_TRIM_THRESHOLD = -1  # glibc's number of the option


def extend(whole: Array, pieces: Iterable[Array]) -> None:
    """Lay the pieces after what is in an array that nothing else refers to."""
    held = list(pieces)
    at = len(whole)
    whole.resize(at + sum(map(len, held)), refcheck=False)
    for piece in held:
        whole[at : at + len(piece)] = piece
        at += len(piece)


def give_back() -> None:
    """Return freed memory to the system, now and later: glibc keeps up to 64 MB for each thread that allocated some."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.mallopt(_TRIM_THRESHOLD, 1 << 20)
        libc.malloc_trim(0)

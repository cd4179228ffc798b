"""Arrays that grow in place, so that large ones are never held twice, and memory that is given back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from normloom.near_duplicates.kernels.compiled import Array


def extend(whole: Array, pieces: Iterable[Array]) -> None:
    """Lay the pieces after what is in an array that nothing else refers to."""
    held = list(pieces)
    at = len(whole)
    whole.resize(at + sum(map(len, held)), refcheck=False)
    for piece in held:
        whole[at : at + len(piece)] = piece
        at += len(piece)


def give_back() -> None:
    """Return freed memory to the system: glibc keeps what one thread allocated and another freed."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)

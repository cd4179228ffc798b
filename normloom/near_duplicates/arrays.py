"""Arrays that grow in place: large ones are never held twice."""

from __future__ import annotations

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

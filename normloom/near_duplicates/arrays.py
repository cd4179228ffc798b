"""Large arrays, put together without holding them twice."""

from __future__ import annotations

import numpy as np

from normloom.near_duplicates.kernels.compiled import Array


def end_to_end(pieces: list[Array]) -> Array:
    """Return the pieces, at least one, as one array; they are taken from the list, and freed as they are copied."""
    whole = np.empty(sum(map(len, pieces)), dtype=pieces[0].dtype)
    at = len(whole)
    while pieces:
        piece = pieces.pop()
        whole[at - len(piece) : at] = piece
        at -= len(piece)
    return whole

"""Clusters of connected rows, by union and find."""

from __future__ import annotations

import numpy as np

from normloom.near_duplicates.kernels.compiled import Array, compiled


@compiled
def _root(parents: Array, row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@compiled
def join(parents: Array, left: Array, right: Array) -> None:
    """Connect left[k] with right[k]."""
    for k in range(len(left)):
        one, other = _root(parents, left[k]), _root(parents, right[k])
        parents[max(one, other)] = min(one, other)


@compiled
def roots(parents: Array) -> Array:
    """Return the smallest row that each row is connected with."""
    return np.array([_root(parents, row) for row in range(len(parents))], dtype=np.int64)

"""Cosines of vector pairs, each summed in one order."""

from __future__ import annotations

import numpy as np

from normloom.near_duplicates.kernels.compiled import Array, compiled


@compiled
def cosines(vectors: Array, left: Array, right: Array) -> Array:
    """Return the cosines of the vector pairs (left[k], right[k]) in double precision; 0 if one has no length.

    Not by BLAS, whose last bits depend on the shapes of the matrices and on the number of threads.
    """
    found = np.zeros(len(left), dtype=np.float64)
    for k in range(len(left)):
        product = one = other = 0.0
        for position in range(vectors.shape[1]):
            a, b = np.float64(vectors[left[k], position]), np.float64(vectors[right[k], position])
            product += a * b
            one += a * a
            other += b * b
        if one > 0 and other > 0:
            found[k] = product / np.sqrt(one * other)
    return found

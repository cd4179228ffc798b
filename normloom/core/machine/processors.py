"""The processors of this machine."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "1000"  # of GNU's OpenMP: a few microseconds
CYCLES = "10"  # of OpenBLAS, a power of two: less than one
BLAS_WAITING = "OPENBLAS_THREAD_TIMEOUT"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_processors(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make waiting threads sleep after a short spin, unless the environment already sets how they wait.

    By default those of GNU's OpenMP (torch) spin for milliseconds, those of OpenBLAS (numpy, scipy) for longer, which
    takes processors from the very threads they wait for if other programs want them too. Both libraries read the
    environment when they are loaded, so call this before torch and numpy are imported.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
    environment.setdefault(BLAS_WAITING, CYCLES)

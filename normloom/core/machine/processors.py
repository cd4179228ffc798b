"""The processors of this machine."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "1000"  # a few microseconds
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_processors(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make waiting OpenMP threads sleep after a short spin, unless the environment already sets how they wait.

    GNU's library spins for milliseconds by default, which takes processors from the very threads it waits for if other
    programs want them too. It reads the environment when it is loaded, so call this before torch is imported.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS

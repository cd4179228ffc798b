"""Kernels are compiled while a build begins: on a new machine a stage would wait a quarter of a minute for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numba

from normloom.near_duplicates.kernels.compiled import KEPT_IN

COMPLETE = KEPT_IN / f"complete-{numba.__version__}-{sys.implementation.cache_tag}"  # there once all are compiled
_LAST = 19  # niceness: only what others leave of the processors


@contextmanager
def compiled_ahead(complete: Path = COMPLETE) -> Iterator[None]:
    """Compile kernels in a process of the lowest priority, which ends with the context; none if the file is there.

    What is needed before it has been compiled is compiled where it is needed. If this process is killed, the other goes
    on to its end, for half a minute at most.
    """
    if complete.exists():
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-m", "normloom.near_duplicates"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, process.pid, _LAST)
        try:
            yield
        finally:
            process.kill()

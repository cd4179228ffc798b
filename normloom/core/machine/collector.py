"""Python's garbage collector in processes that import large libraries: up to a fifth of their start."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000  # imports create hundreds of thousands that stay; Python's default is 700
REPORTS_LEAKS = "_duckdb"  # at exit it prints what was not freed


def collect_rarely() -> None:
    """Look for garbage only after many new objects."""
    gc.set_threshold(YOUNG_OBJECTS)


def exempt_existing() -> None:
    """Exempt all objects that exist now from garbage collection until the process ends."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # or libraries in C++ report leaks at exit


def spare_last_look() -> None:
    """Spare a process that ends the last three looks for garbage; its memory is given back in any case."""
    if REPORTS_LEAKS in sys.modules:
        gc.unfreeze()
    else:
        gc.freeze()


@contextmanager
def loading() -> Iterator[None]:
    """Collect rarely inside; objects that exist at the end are exempt from then on."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        exempt_existing()
        gc.set_threshold(*before)

"""Python's garbage collector in processes that import large libraries: up to a fifth of their start."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000  # imports create hundreds of thousands that stay; Python's default is 700


def collect_rarely() -> None:
    """Look for garbage only after many new objects."""
    gc.set_threshold(YOUNG_OBJECTS)


def keep_what_is_there() -> None:
    """Keep all objects that exist until the process ends, and do not look through them again."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries complain of what is left then


@contextmanager
def loading() -> Iterator[None]:
    """Collect rarely inside; what exists at the end is kept."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        keep_what_is_there()
        gc.set_threshold(*before)

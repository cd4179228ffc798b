"""Whether a process that imported code some time ago would import the same today."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

State = tuple[int, ...]
GONE: State = ()
UNSURE: State = (-1,)  # equals no state of a file
MARGIN = 1_000_000_000  # nanoseconds: a file system's clock is coarser than the process's


@dataclass(frozen=True)
class ReadFiles:
    """The files that a process has read, as they were then."""

    states: Mapping[str, State]

    @classmethod
    def since(cls, started: int, more: Iterable[Path] = ()) -> ReadFiles:
        """Return what this process has imported or may have read, and `more`.

        `started` is when it began, in nanoseconds since 1970: what changed later may have been read before or after.
        """
        states = {path: _state(path) for path in {*_imported(), *_sought(), *map(str, more)}}
        late = started - MARGIN
        return cls({path: UNSURE if state and state[0] > late else state for path, state in states.items()})

    def changed(self) -> str | None:
        """Return one that is not as it was, None if all are."""
        return next((path for path, state in self.states.items() if _state(path) != state), None)


def _state(path: str) -> State:
    try:
        found = os.stat(path)  # noqa: PTH116  # thousands of them before each run
    except OSError:
        return GONE
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _imported() -> Iterator[str]:
    yield sys.executable
    yield from (
        file for module in list(sys.modules.values()) if isinstance(file := getattr(module, "__file__", None), str)
    )


def _sought() -> Iterator[str]:
    """Yield where modules and packages are looked for: a folder changes when one is installed or removed there."""
    for place in sys.path:
        yield place or "."

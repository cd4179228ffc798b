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
_INSTALLED = frozenset({"site-packages", "dist-packages"})
MARGIN = 1_000_000_000  # nanoseconds: a file system's clock is coarser than the process's


@dataclass(frozen=True)
class ReadFiles:
    """The files that a process has read, as they were then, and what else its imports would have found.

    `modules` are the names of what it has imported, `elsewhere` the entries of those names in folders on the path.
    Folders of installed packages are among the files.
    """

    states: Mapping[str, State]
    modules: frozenset[str]
    elsewhere: Mapping[str, frozenset[str]]

    @classmethod
    def since(cls, started: int, more: Iterable[Path] = ()) -> ReadFiles:
        """Return what this process has imported or may have read, and `more`.

        `started` is when it began, in nanoseconds since 1970: what changed later may have been read before or after.
        """
        places = [place or "." for place in sys.path]
        installed = [place for place in places if not _INSTALLED.isdisjoint(Path(place).parts)]
        states = {path: _state(path) for path in {*_imported(), *installed, *map(str, more)}}
        late = started - MARGIN
        states = {path: UNSURE if state and state[0] > late else state for path, state in states.items()}
        modules = frozenset(name.partition(".")[0] for name in sys.modules)
        return cls(states, modules, {place: _named(place, modules) for place in places if place not in installed})

    def changed(self) -> str | None:
        """Return one that is not as it was, None if all are."""
        files = (path for path, state in self.states.items() if _state(path) != state)
        places = (place for place, names in self.elsewhere.items() if _named(place, self.modules) != names)
        return next(files, None) or next(places, None)


def _named(place: str, modules: frozenset[str]) -> frozenset[str]:
    """Return the entries of a folder that may be one of the modules."""
    try:
        return frozenset(name for name in os.listdir(place) if name.partition(".")[0] in modules)  # noqa: PTH208
    except OSError:  # it is not there, or an archive
        return frozenset()


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

"""Modules whose files were edited after they were imported: the file no longer says what runs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from types import ModuleType

_INSTALLED = ("site-packages", "dist-packages")
_State = tuple[int, int]  # time of change and size of a file

_noted: dict[str, tuple[object, str, _State]] = {}  # by module: what its import made, its file, and the state of that
_reloaded: set[str] = set()  # modules that were imported again after an edit
_others: set[str] = set()  # modules of Python and of installed packages, thousands: each is looked at once
_noting = threading.Lock()


def note_loaded() -> None:
    """Note the current state of the files of all loaded modules that are not installed, unless noted before."""
    names = sys.modules.keys() - _others
    others = {name for name in names if name != "__main__" and _is_other(name)}
    _others.update(others)
    note(names - others)


def note(names: Iterable[str]) -> None:
    """Note the current state of the files of modules, unless they are not loaded or noted since their import."""
    with _noting:
        for name in names:
            module = sys.modules.get(name)
            path = _path(module)
            if path is None or (name in _noted and _noted[name][0] is _imported(module)):
                continue
            if state := _state(path):
                if name in _noted and _noted[name][2] != state:
                    _reloaded.add(name)
                _noted[name] = (_imported(module), path, state)


def edited(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first of some modules whose file has changed since it was noted, and the file; None if there is none.

    A module that was reloaded is noted again, and one that was never noted is noted now.
    """
    names = list(names)
    note(names)
    for name in names:
        if (known := _noted.get(name)) and name in sys.modules:
            _, path, state = known
            now = _state(path)
            if now is not None and now != state:
                return name, path
    return None


def reloaded() -> frozenset[str]:
    """Return the modules that were edited and imported again since they were first noted."""
    with _noting:
        return frozenset(_reloaded)


def _is_other(name: str) -> bool:
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(path, str) and _is_installed(path)


def _is_installed(path: str) -> bool:
    return any(part in path for part in _INSTALLED)


def _path(module: ModuleType | None) -> str | None:
    path = getattr(module, "__file__", None)
    return path if path and path.endswith(".py") and not _is_installed(path) else None


def _imported(module: ModuleType | None) -> object:
    """Return what is another object after another import: the spec, which a reload replaces; a script has none."""
    return getattr(module, "__spec__", None) or module


def _state(path: str) -> _State | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # for hundreds of modules
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size

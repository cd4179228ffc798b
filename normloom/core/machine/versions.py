"""Versions of installed libraries."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import metadata


def installed_version(library: str) -> str:
    """Return the version of an installed library; importlib's PackageNotFoundError if there is none.

    It is read again only once something has been installed or removed, or the path of modules has changed.
    """
    return _version(library, tuple((folder, _changed_at(folder)) for folder in sys.path))


@lru_cache(maxsize=1_000)
def _version(library: str, _path: tuple[tuple[str, int], ...]) -> str:
    return metadata.version(library)


def _changed_at(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116  # asked of all folders by each key; `Path.stat` takes longer
    except OSError:
        return 0

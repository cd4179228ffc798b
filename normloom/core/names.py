"""Names of systems and stages, which become folders of a store and parts of view names, and of flow files."""

from __future__ import annotations

import re

from normloom.core.errors import ConfigError

_NAME = re.compile(r"\w[\w .-]*")
_TAKEN = frozenset({"builds", "latest", "format"})  # what a store has for itself next to them


def is_flow_file(name: str) -> bool:
    """Return whether a name means a file, as in `my_flow.py` or `my_flow.py:name`, and no system."""
    return name.partition(":")[0].endswith(".py")


def require_name(name: str, *, what: str) -> None:
    """Raise ConfigError for a name that cannot be a folder of a store; `what` has it."""
    if name in _TAKEN:
        raise ConfigError(f"{what} {name!r}: stores use this name for something else; choose another")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{what} {name!r}: begin with a letter or digit, then use these and _ - . or spaces")

"""The systems that can be built: each is an entry point of the group `normloom.systems` that names a `System`.

Normloom's own are declared in its pyproject.toml, in the way in which any installed package adds one.
"""

from __future__ import annotations

from functools import cache

from normloom.core.errors import ConfigError
from normloom.core.machine.declared import declared, loaded
from normloom.core.names import is_flow_file
from normloom.settings.flow_file import system_of
from normloom.settings.system import System

GROUP = "normloom.systems"


@cache
def _loaded(name: str) -> System:
    point = declared(GROUP, "system")[name]
    system = loaded(point, "system", System)
    if system.name != name:
        raise ConfigError(f"system {name!r}: {point.value} calls itself {system.name!r}; use one name for both")
    return system


def system_names() -> list[str]:
    """Return the names of all installed systems, sorted; imports none of them."""
    return list(declared(GROUP, "system"))


def systems() -> dict[str, System]:
    """Return all installed systems by name; raises ConfigError if one cannot be loaded."""
    return {name: _loaded(name) for name in system_names()}


def system_named(name: str) -> System:
    """Return a system by name, or of a file (`my_flow.py`, `my_flow.py:NAME`); raises ConfigError."""
    if is_flow_file(name):
        return system_of(name)
    if name not in system_names():
        raise ConfigError(
            f"unknown system {name!r}; available: {', '.join(system_names())}, or the path of a Python file"
        )
    return _loaded(name)


def name_of(system: str) -> str:
    """Return the name under which a store has a system that may be given as a file."""
    return system_of(system).name if is_flow_file(system) else system


def chat_systems() -> list[str]:
    """Return the names of the installed systems that have a chat face."""
    return [name for name, system in systems().items() if system.chat]

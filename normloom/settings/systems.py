"""The systems that can be built: each is an entry point of the group `normloom.systems` that names a `System`.

Normloom's own are declared in its pyproject.toml, in the way in which any installed package adds one.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from normloom.core.errors import ConfigError
from normloom.settings.flow_file import is_flow_file, system_of
from normloom.settings.system import System

GROUP = "normloom.systems"


@cache
def _declared() -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"system {point.name!r} is declared twice, as {other.value} and {point.value}: "
                "uninstall one of the two packages"
            )
    return points


@cache
def _loaded(name: str) -> System:
    point = _declared()[name]
    try:
        system = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"system {name!r}: its entry point {point.value} cannot be loaded: {error}") from error
    if not isinstance(system, System):
        raise ConfigError(f"system {name!r}: {point.value} must be a System, got {type(system).__name__}")
    if system.name != name:
        raise ConfigError(f"system {name!r}: {point.value} calls itself {system.name!r}; use one name for both")
    return system


def system_names() -> list[str]:
    """Return the names of all installed systems, sorted; imports none of them."""
    return list(_declared())


def systems() -> dict[str, System]:
    """Return all installed systems by name; raises ConfigError if one cannot be loaded."""
    return {name: _loaded(name) for name in _declared()}


def system_named(name: str) -> System:
    """Return a system by name, or of a file (`my_flow.py`, `my_flow.py:NAME`); raises ConfigError."""
    if is_flow_file(name):
        return system_of(name)
    if name not in _declared():
        raise ConfigError(f"unknown system {name!r}; available: {', '.join(_declared())}, or the path of a Python file")
    return _loaded(name)


def name_of(system: str) -> str:
    """Return the name under which a store has a system that may be given as a file."""
    return system_of(system).name if is_flow_file(system) else system

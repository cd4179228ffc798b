"""Systems and engines that installed packages declare by entry points."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from normloom.core.errors import ConfigError

Declared = TypeVar("Declared")


@cache
def declared(group: str, noun: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted; raises ConfigError if two packages declare one name."""
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"{noun} {point.name!r} is declared twice, as {other.value} and {point.value}: "
                "uninstall one of the two packages"
            )
    return points


def loaded(point: EntryPoint, noun: str, kind: type[Declared]) -> Declared:
    """Return what an entry point names; raises ConfigError if it cannot be loaded or is of another type."""
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{noun} {point.name!r}: its entry point {point.value} cannot be loaded: {error}") from error
    if not isinstance(found, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ConfigError(
            f"{noun} {point.name!r}: {point.value} must be {article} {kind.__name__}, got {type(found).__name__}"
        )
    return found

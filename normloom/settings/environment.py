"""Environment variables in profiles: `${NORMLOOM_MODEL}`, or `${NORMLOOM_MODEL:-llama3.2}` with a default."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from normloom.core.errors import ConfigError

PREFIX = "NORMLOOM_"
_VARIABLE = re.compile(r"\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")


def substituted(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings with the variables in their texts filled in.

    Only variables that begin with NORMLOOM_: what they hold is recorded with the tables, which a key must not be.
    Raises ConfigError that names the variables which are not set and have no default, or are not of these.
    """
    found = dict.fromkeys(_variables(settings))
    if foreign := [name for name, _ in found if not name.startswith(PREFIX)]:
        raise ConfigError(
            f"{where}: ${{{foreign[0]}}} is not filled in, only variables whose names begin with {PREFIX} are; a key "
            "is read from the variable that a model's option key_variable names"
        )
    if unset := list(dict.fromkeys(name for name, default in found if _value(name, default) is None)):
        raise ConfigError(
            f"{where} needs environment variables that are not set: export {' '.join(f'{name}=...' for name in unset)}"
        )
    return {name: _filled(value) for name, value in settings.items()}


def _filled(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {name: _filled(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_filled(value) for value in settings]
    if isinstance(settings, str):
        return _VARIABLE.sub(lambda one: _value(one["name"], one["default"]) or "", settings)
    return settings


def _variables(settings: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the names of the variables in settings, each with its default."""
    if isinstance(settings, Mapping | list):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _variables(value)
    elif isinstance(settings, str):
        yield from ((one["name"], one["default"]) for one in _VARIABLE.finditer(settings))


def _value(name: str, default: str | None) -> str | None:
    """Return what a variable stands for; None if it is not set and has no default."""
    return os.environ.get(name, "").strip() or default

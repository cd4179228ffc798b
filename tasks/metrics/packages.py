"""Packages of statistics that Normloom does not depend on: two of them are under the GPL."""

from __future__ import annotations

import importlib
from typing import Any

from normloom.core.errors import ConfigError


def statistics_package(name: str) -> Any:
    """Import a package of the extra `statistics`; raises ConfigError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f'figures of raters need the package {name!r}: install it with pip install "normloom[statistics]"'
        ) from error

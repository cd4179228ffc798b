"""The systems that can be built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows.savacu import savacu
from flows.savacu_config import SavacuConfig
from normloom.errors import ConfigError
from normloom.stage import Stage


@dataclass(frozen=True)
class System:
    """A system's name, the type of its settings and the flow that turns settings into stages."""

    name: str
    title: str
    config: type[Any]
    flow: Callable[[Any], list[Stage]]


SYSTEMS = {
    "savacu": System("savacu", "SaVaCu (Mis-Align Bench)", SavacuConfig, savacu),
}


def system_named(name: str) -> System:
    """Return a system by name; raises ConfigError naming those there are."""
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r}; there is {', '.join(SYSTEMS)}")
    return SYSTEMS[name]

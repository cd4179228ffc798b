"""The systems that can be built: those of Normloom, and those that installed packages add.

A package adds one by an entry point of the group `normloom.systems` that names a `System`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from normloom.core.errors import ConfigError
from normloom.flows.benchmark.flow import BENCHMARK
from normloom.flows.demo_safetybench.flow import DEMO_SAFETYBENCH
from normloom.flows.misaligntrade import MISALIGNTRADE
from normloom.flows.savacu import summary as savacu_summary
from normloom.flows.savacu.config import SavacuConfig
from normloom.flows.savacu.flow import savacu
from normloom.settings.flow_file import is_flow_file, system_of
from normloom.settings.system import System

GROUP = "normloom.systems"

SAVACU = System(
    name="savacu", title="SaVaCu (Mis-Align Bench)", config=SavacuConfig, flow=savacu, sections=savacu_summary.sections
)
BUILTIN = (SAVACU, MISALIGNTRADE, DEMO_SAFETYBENCH, BENCHMARK)


@cache
def systems() -> dict[str, System]:
    """Return all systems by name; raises ConfigError for an entry point that is none, or a name that is taken."""
    found = {system.name: system for system in BUILTIN}
    for point in entry_points(group=GROUP):
        try:
            system = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"system {point.name!r}: its entry point {point.value} cannot be loaded: {error}"
            ) from error
        if not isinstance(system, System):
            raise ConfigError(f"system {point.name!r}: {point.value} is no System but a {type(system).__name__}")
        if system.name in found:
            raise ConfigError(
                f"system {point.name!r}: {point.value} takes the name {system.name!r}, which is another's"
            )
        found[system.name] = system
    return found


def system_named(name: str) -> System:
    """Return a system by name, or of a file (`my_flow.py`, `my_flow.py:NAME`); raises ConfigError."""
    if is_flow_file(name):
        return system_of(name)
    if name not in systems():
        raise ConfigError(f"unknown system {name!r}; available: {', '.join(systems())}, or the path of a Python file")
    return systems()[name]


def name_of(system: str) -> str:
    """Return the name under which a store has a system that may be given as a file."""
    return system_of(system).name if is_flow_file(system) else system

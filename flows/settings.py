"""From what a command is given to the stages it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from normloom.flows.config import load_profile, override, validated
from normloom.flows.system import System
from normloom.flows.systems import system_named
from normloom.resources import Resources
from normloom.stage import Stage, standing
from normloom.store import Store


class Prepared(NamedTuple):
    """A system with its checked settings, what its build may occupy, and the last stages of its flow."""

    system: System
    config: Any
    resources: Resources
    ends: list[Stage]


def stages_for(name: str, *, profile: str, assignments: Sequence[str], store: Store) -> Prepared:
    """Return a system under a profile with some settings changed; raises ConfigError naming what is wrong.

    Tables of other systems that the flow starts from are the newest in the store.
    """
    system = system_named(name)
    config, resources = validated(system.config, override(load_profile(profile, name), assignments))
    return Prepared(system, config, resources, system.flow(config, **_read(system.reads(config), name, store)))


def _read(reads: Mapping[str, str], reader: str, store: Store) -> dict[str, Stage | None]:
    """Return a stage for each published table that a flow starts from, None where there is no such table."""
    found: dict[str, Stage | None] = {}
    for parameter, table in reads.items():
        owner, _, stage = table.partition("/")
        newest = store.current(owner, stage)
        found[parameter] = standing(newest.ref, reader=reader) if newest else None
    return found

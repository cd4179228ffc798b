"""From what a command is given to the stages it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flows.config import load_profile, override, validated
from flows.systems import System, system_named
from normloom.resources import Resources
from normloom.stage import Stage


class Prepared(NamedTuple):
    """A system with its checked settings, what its build may occupy, and the last stages of its flow."""

    system: System
    config: Any
    resources: Resources
    ends: list[Stage]


def stages_for(name: str, *, profile: str, assignments: Sequence[str]) -> Prepared:
    """Return a system under a profile with some settings changed; raises ConfigError naming what is wrong."""
    system = system_named(name)
    config, resources = validated(system.config, override(load_profile(profile, name), assignments))
    return Prepared(system, config, resources, system.flow(config))

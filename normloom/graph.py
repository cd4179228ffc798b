"""The stages of a flow in an order in which they can run."""

from __future__ import annotations

from collections.abc import Sequence

from normloom.errors import ConfigError
from normloom.models.protocol import ModelSpec
from normloom.stage import Stage


def stages_of(*ends: Stage) -> list[Stage]:
    """Return every stage that the given ones stand on, and themselves, each after those it reads.

    Raises ConfigError when two different stages share a name.
    """
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if ordered.get(stage.name) is stage:
            return
        for upstream in stage.upstream:
            visit(upstream)
        if stage.name in ordered:
            raise ConfigError(f"two stages of the flow are named {stage.name!r}: give each its own name")
        ordered[stage.name] = stage

    for end in ends:
        visit(end)
    return list(ordered.values())


def model_uses(stages: Sequence[Stage]) -> list[ModelSpec]:
    """Return the model of each stage that has one, in order."""
    return [stage.model for stage in stages if stage.model]

"""A chain of three toy stages, and their tables without Prefect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from normloom.core.models.protocol import ModelSpec
from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.steps.selection import Again
from normloom.store.store import Store
from normloom.testing.inline import run_all
from normloom.testing.toy import ECHOES, SCRIPTED, Echo, echo, echo_stage, runner, words_stage


def three(
    *,
    words: tuple[str, ...] = ("a", "b", "c"),
    model: ModelSpec = SCRIPTED,
    last_model: ModelSpec = SCRIPTED,
    **arguments: Any,
) -> list[Stage]:
    """Return `words`, `echo` (with the model and arguments given) and `last`, which echoes the echoes."""
    first = words_stage(*words)
    second = echo_stage(first, model=model, **arguments)
    last = Stage(
        name="last",
        function=echo,
        arguments=Echo(),
        contract=ECHOES,
        inputs=(second,),
        model=last_model,
        part_rows=2,
    )
    return [first, second, last]


def made(store: Store, *stages: Stage, again: Again | None = None, build: str = "test") -> dict[str, Manifest]:
    """Bring the tables of the stages, given in order, up to date and return their manifests."""
    loom = replace(runner(store), build=build)
    try:
        return run_all(loom, stages, {stage.name: again for stage in stages} if again else None)
    finally:
        loom.pool.close()

"""Processes of their own that settings give to stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import prepared

from normloom.core.errors import ConfigError
from normloom.core.models.needs import Needs, ProcessSpec
from normloom.core.stage import Stage
from normloom.planning.keys import key_fields
from normloom.steps.graph import stages_of
from normloom.store.store import Store


def stages(store: Store, *assignments: str, system: str = "savacu") -> dict[str, Stage]:
    return {stage.name: stage for stage in stages_of(*prepared(system, store, *assignments).ends)}


def test_a_stage_gets_processes_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    changed = stages(store, "resources.needs={select: {processes: 4, memory: 2}}")
    default = stages(store)
    held = changed["select"].holds
    assert isinstance(held, ProcessSpec)
    assert (held.actors, held.memory) == (4, 2)
    assert default["select"].needs is None
    assert changed["deduplicate"].needs is None
    assert key_fields("savacu", changed["select"], inputs=[], sides=[]) == key_fields(
        "savacu", default["select"], inputs=[], sides=[]
    )


def test_needs_of_a_setting_come_before_those_of_the_step(tmp_path: Path) -> None:
    policy = "models.policy={engine: transformers, model: m, gpus: 1}"
    changed = stages(Store(tmp_path), policy, "resources.needs={train: {threads: 8, gpus: 1}}", system="persodpo")
    assert changed["train"].needs == Needs(threads=8, gpus=1)
    assert changed["train_simple"].needs == Needs(threads=1, gpus=1)
    assert [product.name for product in changed["answer_persodpo"].products] == ["train"]
    assert changed["answer_persodpo"].products[0] is changed["train"]


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resources.needs: unknown stage 'selct' of savacu; available: .*select"):
        stages(Store(tmp_path), "resources.needs={selct: {processes: 4}}")

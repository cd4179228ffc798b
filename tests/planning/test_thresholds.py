"""A threshold costs no model: what a model said is reused, whatever is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from normloom.core.stage import Stage
from normloom.core.table import Manifest
from normloom.planning.plan import plan
from normloom.settings.settings import stages_for
from normloom.settings.systems import system_named, systems
from normloom.steps.graph import stages_of
from normloom.store.store import Store
from normloom.testing.toy import runner
from normloom.workers.resources import Resources

ROLES = {
    "embedder": "{engine: scripted, model: e}",
    "classifier": "{engine: scripted, model: c, options: {yes_rate: 0.05}}",
    "expander": "{engine: scripted, model: x, options: {words: 12}}",
    "typer": "{engine: scripted, model: t}",
    "judge": "{engine: scripted, model: j, options: {yes_rate: 0.7}}",
    "generators": "{g1: {engine: scripted, model: m}}",
    "raters": "{r1: {engine: scripted, model: r}}",
}
SAVACU = ("source.limit=4", "expand.dimensions=[]", "rounds=0", "judge.calibration=none")
SETTINGS: dict[str, tuple[str, ...]] = {
    "savacu": SAVACU,
    "misaligntrade": SAVACU,
    "demo_safetybench": ("source.limit=3", "expand.minimum=0"),
    "benchmark": ("source.limit=4", "models={m1: {engine: scripted, model: a}}"),
}

# Every setting that is compared with what a model said, and the stages that may ask a model after it has changed:
# another delta gives other prompts to generators, since those without a label get no responses.
GENERATED = frozenset({"generate_0_g1", "score_0"})
THRESHOLDS: dict[tuple[str, str], frozenset[str]] = {
    ("savacu", "classify.delta"): GENERATED,
    ("savacu", "judge.threshold"): frozenset(),
    ("savacu", "judge.on_task_threshold"): frozenset(),
    ("misaligntrade", "classify.delta"): GENERATED,
    ("misaligntrade", "judge.threshold"): frozenset(),
    ("misaligntrade", "judge.on_task_threshold"): frozenset(),
    ("demo_safetybench", "classify.delta"): frozenset(),
    ("demo_safetybench", "threshold"): frozenset(),
    ("benchmark", "threshold"): frozenset(),
}


def flow(system: str, store: Store, *assignments: str) -> list[Stage]:
    roles = system_named(system).config.model_fields["models"].annotation
    named = [f"{role}: {ROLES[role]}" for role in getattr(roles, "model_fields", ())]
    models = [f"models={{{', '.join(named)}}}"] if named else ["judges={j1: {engine: scripted, model: j}}"]
    given = [*models, *SETTINGS[system], *assignments]
    if named:
        given = ["classify.route=exhaustive", *given]
    return stages_of(*stages_for(system, profile="local", assignments=given, store=store).ends)


def build(system: str, store: Store, stages: list[Stage]) -> set[str]:
    """Build the stages and return those that asked a model; a stage without one is given none."""
    loom, made, asked = replace(runner(store), system=system), dict[str, Manifest](), set[str]()
    for stage in stages:
        inputs, sides = ([made[each.name].ref for each in group] for group in (stage.inputs, stage.sides))
        made[stage.name], reused = loom.run(stage, inputs, sides)
        if stage.model and not reused and made[stage.name].attempts:
            asked.add(stage.name)
    loom.pool.close()
    return asked


def planned(system: str, store: Store, stages: list[Stage]) -> dict[str, str]:
    found = plan(stages, system=system, store=store, resources=Resources(actors=0))
    return {one.stage.name: one.state for one in found.stages}


@pytest.mark.parametrize("system", SETTINGS)
def test_a_changed_threshold_asks_no_model_about_what_it_was_asked_before(system: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = flow(system, store)
    asking = build(system, store, stages)
    assert asking >= {stage.name for stage in stages if stage.model} - {"expand"}
    for (name, setting), may_ask in THRESHOLDS.items():
        if name != system:
            continue
        changed = flow(system, store, f"{setting}=0.37")
        states = planned(system, store, changed)
        reused = {stage for stage in asking if states[stage] == "reused"}
        # Until labels are made again a plan cannot tell that those of the stages after them are about the same texts.
        assert reused == (asking & {"score_labels"} if setting == "classify.delta" else asking), setting
        assert "changed" in states.values(), setting
        assert build(system, store, changed) <= may_ask, setting


def test_every_setting_that_is_a_threshold_is_tried() -> None:
    found = {
        (name, path)
        for name in systems()
        for path, field in fields_of(system_named(name).config)
        if path.rpartition(".")[2] == "delta" or "threshold" in path
        if field.annotation is float
    }
    assert found == set(THRESHOLDS)


def fields_of(settings: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in settings.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields_of(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


@pytest.mark.parametrize("route", ["shortlist", "embedding"])
def test_another_delta_asks_nothing_by_any_route(route: str, tmp_path: Path) -> None:
    store = Store(tmp_path)

    def labelling(delta: float) -> list[Stage]:
        stages = flow("savacu", store, f"classify.route={route}", f"classify.delta={delta}")
        return stages_of(next(stage for stage in stages if stage.name == "classify"))

    assert build("savacu", store, labelling(0.5))
    assert build("savacu", store, labelling(0.4)) == set()


def test_a_later_round_asks_only_about_what_another_threshold_leaves_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build("savacu", store, flow("savacu", store, "rounds=1"))
    changed = flow("savacu", store, "rounds=1", "judge.threshold=0.37")
    states = planned("savacu", store, changed)
    assert (states["score_0"], states["judge_0"], states["shortfall_1"]) == ("reused", "changed", "waiting")
    assert {states[stage] for stage in ("diagnose_1", "generate_1_g1", "score_1")} == {"waiting"}
    assert build("savacu", store, changed) == {"diagnose_1", "generate_1_g1", "score_1"}

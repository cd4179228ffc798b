"""Examples of systems without candidates: evaluated responses, and conversations as people and models rated them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from normloom.report.material import find_material
from normloom.report.report import report
from normloom.settings.settings import stages_for
from normloom.store.store import Store
from normloom.testing.builds import build_id, built

MODEL = "{engine: scripted, model: m, options: {words: 9, yes_rate: 0.4}}"
RATING = f"embedder: {{engine: scripted, model: e}}, classifier: {MODEL}, expander: {MODEL}, raters: {{r1: {MODEL}}}"
SETTINGS = {
    "benchmark": [f"models={{m: {MODEL}}}", f"judges={{j: {MODEL}}}", "source.limit=6"],
    "demo_safetybench": [f"models={{{RATING}}}", "classify.route=exhaustive", "expand.minimum=1", "source.limit=6"],
}


def examples(system: str, place: Path) -> list[dict[str, Any]]:
    store = Store(place)
    found = stages_for(system, profile="local", assignments=SETTINGS[system], store=store)
    built(store, *found.ends, build=build_id(1), system=system)
    [section] = [one for one in report(find_material(store, system))["sections"] if one["name"] == "examples"]
    found_examples: list[dict[str, Any]] = section["data"]["examples"]
    return found_examples


def test_evaluated_responses_are_shown_with_what_each_model_made_of_them(tmp_path: Path) -> None:
    found = examples("benchmark", tmp_path)
    items = [one for one in found if one["title"].startswith("truly ")]
    assert {one["title"] for one in items} == {"truly aligned", "truly misaligned"}
    for one in items:
        assert set(one["texts"]) == {"prompt", "response"}
        assert 0 <= float(one["facts"]["P(misaligned) by m"]) <= 1


def test_conversations_are_shown_with_ratings_of_people_and_models(tmp_path: Path) -> None:
    found = examples("demo_safetybench", tmp_path)
    assert found
    for one in found:
        assert one["title"].startswith("conversation of the ")
        assert one["facts"]["rated unsafe by models (0 to 1)"].startswith("r1 ")

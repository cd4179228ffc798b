"""The report of a PersoDPO build: pairs, margins, shortcuts, checks, curves and policies."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from in_process import prepared

from normloom.core.stage import Output
from normloom.flows.persodpo import summary
from normloom.report.blocks import Note, Plot, Table
from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.report.sections.results.preferences import collect, draw
from normloom.run.build import BuildRequest, reuse
from normloom.schemas.tables import FIGURES, named_by_content
from normloom.schemas.training.preference_tables import CURVE
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.metrics.figure import Figure, figure_row
from normloom.testing.builds import built

FORMAT_ALONE = "The format of a reply alone tells chosen from rejected in simple pairs"
BUILD = "20261127T000001-ab01"


@step(makes=CURVE)
def learned() -> Output:
    rows: list[dict[str, Any]] = [
        {"parents": [], "content": str(number), "step": number} | dict.fromkeys(("loss", "reward_accuracy"), 1 / number)
        for number in (1, 2)
    ]
    return Output(rows=_filled(rows, CURVE), attempts=2)


@step(makes=FIGURES)
def told() -> Output:
    rows = [
        figure_row(Figure(value=0.6, low=0.55, high=0.65, rows=90), metric="reward_accuracy", of="tuned"),
        figure_row(Figure(value=0.1, rows=9), metric="failure", of="tuned"),
        figure_row(Figure(value=0.7, rows=9), metric="coherence_valid", of="tuned"),
    ]
    return Output(rows=pl.DataFrame(rows, schema=named_by_content(FIGURES)), attempts=3)


def _filled(rows: list[dict[str, Any]], contract: Any) -> pl.DataFrame:
    frame = pl.DataFrame(rows)
    absent = [pl.lit(0).cast(kind).alias(name) for name, kind in contract.columns.items() if name not in frame.columns]
    return frame.with_columns(absent)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    ends = [*prepared("persodpo", made).ends, learned(), told()]
    built(made, *ends, build=BUILD, system="persodpo")
    return made


def test_the_section_shows_what_the_build_has(store: Store) -> None:
    data = collect(find_material(store, "persodpo"))
    assert data is not None
    pairs = {name: method["pairs"] for name, method in data["methods"].items()}
    assert pairs.keys() == {"quality", "simple"}
    for name, method in data["methods"].items():
        assert sum(row["chosen"] for row in method["models"]) == pairs[name]
        assert sum(row["content"] + row["format"] for row in method["models"]) == pairs[name]
    margins = data["methods"]["quality"]["margins"]
    assert sum(sum(counts) for counts in margins.values()) == pairs["quality"]
    assert data["curves"] == {"learned": [(1, 1.0), (2, 0.5)]}
    assert data["policies"][0]["coherence_valid"] == 0.7


def test_it_is_drawn_with_warnings_and_every_table(store: Store) -> None:
    blocks = list(draw(collect(find_material(store, "persodpo")) or {}))
    warnings = [block.text for block in blocks if isinstance(block, Note) and block.warning]
    assert any(text.startswith(FORMAT_ALONE) for text in warnings)
    titles = [block.title for block in blocks if isinstance(block, Table)]
    assert titles == [
        "Checks",
        "How well one feature alone tells chosen from rejected",
        "Held-out pairs",
        "Policies on validation prompts",
    ]
    assert {"quality: margins", "Training: pairs in order"} <= {
        block.title for block in blocks if isinstance(block, Plot)
    }


def test_the_page_holds_it(store: Store) -> None:
    made = report(find_material(store, "persodpo"))
    assert "preferences" in [section["name"] for section in made["sections"]]
    assert "Preference pairs" in page(made)


def test_the_summary_warns_of_shortcuts_and_shows_checks(store: Store) -> None:
    ends = [*prepared("persodpo", store).ends, learned(), told()]
    result = reuse(*ends, request=BuildRequest(system="persodpo", profile="", settings=()), store=store)
    assert result is not None
    shown = summary.sections(result, store)
    texts = [str(one) for one in shown]
    assert any(FORMAT_ALONE in text for text in texts)
    assert len(shown) > 1

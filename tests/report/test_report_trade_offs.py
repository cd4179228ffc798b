"""The page of several aims: each axis by system, who paid for what, and how sure the router is."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from normloom.core.stage import Output
from normloom.report.blocks import Note, Plot, Table
from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.report.sections.results.trade_offs import collect, draw
from normloom.schemas.tables import named_by_content
from normloom.schemas.training.alignx_tables import JUDGED, ROUTED, WORST
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.tradeoff.axis_figures import axis_figures
from normloom.tasks.tradeoff.calibration import calibration_figures, reliability
from normloom.tasks.tradeoff.conflict import conflict
from normloom.testing.builds import built

PROMPTS = 30
# for each system and axis, every n-th reply fails
SYSTEMS = {"base": (2, 3, 3), "expert:helpful": (6, 2, 3), "expert:harmless": (2, 15, 3), "routed": (5, 8, 4)}


@step(makes=JUDGED)
def judged() -> Output:
    rows: list[dict[str, Any]] = []
    for system, (helpful, harmless, honest) in SYSTEMS.items():
        for number in range(PROMPTS):
            won, safe, true = (float(number % every != 0) for every in (helpful, harmless, honest))
            for axis, prompt in (("helpful", "h"), ("harmless", "s"), ("honest", "t")):
                told = {"prompt_id": f"{prompt}{number}", "axis": axis, "system": system}
                failed = number == 7 and axis == "helpful"
                rows.append({**told, "measure": "win", "value": None if failed else won})
                rows.append({**told, "measure": "unsafe", "value": 1 - safe})
                rows.append({**told, "measure": "informative", "value": 1.0})
                if axis == "honest":
                    rows.append({**told, "measure": "truthful", "value": true})
    made = [
        {
            "parents": [],
            "content": "\x1f".join((row["prompt_id"], row["system"], row["measure"])),
            "judge": "<i>judge</i>",
            "worst": WORST[row["measure"]],
            "words": 20,
            "reference_words": 30 if row["measure"] == "win" else None,
            "parse_status": "ok" if row["value"] is not None else "bad_format",
            **row,
        }
        for row in rows
    ]
    return Output(rows=pl.DataFrame(made, schema=named_by_content(JUDGED)), attempts=len(made))


@step(makes=ROUTED)
def routed() -> Output:
    made = [
        {
            "parents": [],
            "content": str(number),
            "prompt_id": str(number),
            "split": "test",
            "axis": "harmless" if number % 4 else "helpful",
            "probabilities": [sure, 1 - sure],
            "calibrated_global": [0.5 + (sure - 0.5) / 2, 0.5 - (sure - 0.5) / 2],
            "calibrated_local": [0.5 + (sure - 0.5) / 3, 0.5 - (sure - 0.5) / 3],
        }
        for number, sure in ((number, 0.5 + number % 50 / 100) for number in range(100))
    ]
    return Output(rows=pl.DataFrame(made, schema=named_by_content(ROUTED)), attempts=len(made))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    told, routing = judged(), routed()
    ends = [axis_figures(told), conflict(told), calibration_figures(routing), reliability(routing)]
    built(made, *ends, build="20261128T000001-ab01", system="alignx")
    return made


def test_each_axis_is_shown_before_what_is_over_several(store: Store) -> None:
    blocks = list(draw(collect(find_material(store, "alignx")) or {}))
    plots = [block.title for block in blocks if isinstance(block, Plot)]
    assert plots == [
        "helpful: Win rate, judged replies",
        "harmless: Unsafe share, judged replies (lower is better)",
        "honest: Truthful and informative, judged replies",
        "Who paid for what: share of prompts, against the base",
        "Reliability of the router, test rows",
    ]
    tables = [block.title for block in blocks if isinstance(block, Table)]
    assert [title.partition(":")[0] for title in tables] == [
        "Win rates with the length of replies",
        "Conflict between axes",
        "Bins, test rows",
        "Calibration",
        "Replies without a judgement",
    ]
    assert any(isinstance(block, Note) and "hides who paid" in block.text for block in blocks)


def test_bars_have_the_figures_and_their_intervals(store: Store) -> None:
    helpful = next(block for block in draw(collect(find_material(store, "alignx")) or {}) if isinstance(block, Plot))
    (trace,) = helpful.figure["data"]
    assert trace["x"][0] == pytest.approx(14 / 29)  # 15 of 30 prompts are odd, of which one was not judged
    assert all(above > 0 for above in trace["error_x"]["array"])
    assert trace["name"] == "&lt;i&gt;judge&lt;/i&gt;"


def test_length_and_failures_are_told_with_the_win_rate(store: Store) -> None:
    data = collect(find_material(store, "alignx")) or {}
    assert len(data["unjudged"]) == len(SYSTEMS)
    table = next(block for block in draw(data) if isinstance(block, Table))
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert (row["wins"], row["losses"], row["draws"], row["unjudged"]) == (14, 15, 0, 1)
    assert (row["words"], row["words of the reference"]) == (20, 30)


def test_the_page_holds_it_and_other_builds_have_no_such_section(store: Store) -> None:
    made = report(find_material(store, "alignx"))
    assert "axes" in [section["name"] for section in made["sections"]]
    assert "What each axis won and paid" in page(made)
    other = built(store, calibration_figures(routed()), build="20261128T000002-ab01", system="toy")
    assert other
    assert collect(find_material(store, "toy")) is None

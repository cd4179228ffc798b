"""The section of a report that shows whose judgement models follow, on figures that were given by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from normloom.core.content import MARK
from normloom.core.stage import Output
from normloom.report.blocks import Note, Plot, Table, Tiles
from normloom.report.material import find_material
from normloom.report.page import page
from normloom.report.report import report
from normloom.report.sections.results.judgement import SECTION
from normloom.schemas.media.cultural_tables import IMAGES
from normloom.schemas.tables import FIGURES, TEXTS
from normloom.steps.step import step
from normloom.store.store import Store
from normloom.tasks.metrics.figure import Figure, figure_row, figures_output
from normloom.testing.builds import built

BUILD = "20261127T000001-ab01"


def figure(value: float, rows: int = 40) -> Figure:
    return Figure(value=value, low=value - 0.1, high=value + 0.1, rows=rows)


def cell(metric: str, value: float, axis: str = "zero shot", language: str = "hi") -> dict[str, object]:
    return figure_row(figure(value), metric=metric, of="m", axis=axis, slice_by="language", slice=language)


ROWS = [
    cell("macro_f1", 0.7),
    cell("macro_f1_of_majority", 0.4),
    cell("accuracy", 0.75),
    cell("failure", 0.05),
    cell("position_flips", 0.3),
    cell("macro_f1_change", 0.02, axis="one shot"),
    figure_row(figure(0.8), metric="agreement", of="m", axis="us"),
    figure_row(figure(0.6), metric="agreement", of="m", axis="in"),
    figure_row(figure(0.9), metric="agreement", of="us", axis="in"),  # of two groups, not of a model
    figure_row(figure(0.72), metric="sides_with_us", of="m", axis="in"),
    figure_row(figure(0.55), metric="sides_with_us", of="m", axis="de"),
    figure_row(Figure(undefined="no answers"), metric="sides_with_us", of="m", axis="cn"),
    figure_row(Figure(value=0.3, rows=200), metric="alpha", of="in"),
    figure_row(figure(0.2), metric="position_flips", of="m", slice_by="wording", slice="0"),
]


@step(makes=FIGURES)
def told(*, pull: bool) -> Output:
    return figures_output([row for row in ROWS if pull or not str(row["metric"]).startswith("sides_with")])


@step(makes={"context": pl.String, "question": pl.String, "images": IMAGES})
def questions(*, pictures: int) -> Output:
    place = {"media_id": "x", "shard": "s", "offset": 0, "size": 1}
    rows = {"context": [MARK * pictures], "question": ["a or b?"], "images": [[place] * pictures]}
    frame = pl.DataFrame(rows, schema_overrides={"images": IMAGES})
    return Output(rows=frame.with_columns(parents=pl.lit([], dtype=TEXTS), content=pl.lit("1")), attempts=1)


def drawn(tmp_path: Path, *, pictures: int = 0) -> tuple[Any, list[Any]]:
    store = Store(tmp_path)
    built(store, told(pull=True), questions(pictures=pictures), build=BUILD, system="cross_cultural")
    data = SECTION.collect(find_material(store, "cross_cultural"))
    assert data is not None
    return data, list(SECTION.draw(data))


def test_cells_changes_pull_and_flips_are_shown(tmp_path: Path) -> None:
    _, blocks = drawn(tmp_path, pictures=1)
    plots = {block.title: block.figure for block in blocks if isinstance(block, Plot)}
    assert plots["m: macro-F1 above the majority class"]["data"][0]["z"] == [[pytest.approx(0.3)]]
    assert list(plots["m: what each axis changes in macro-F1"]["data"][0]["x"]) == [0.02]
    agreement = plots["Agreement with the labels of each country"]["data"]
    assert [trace["name"] for trace in agreement] == ["m"]
    pull = plots["Side with us"]
    assert list(pull["data"][0]["x"]) == [0.72, 0.55]
    assert pull["data"][0]["error_x"]["array"] == pytest.approx([0.1, 0.1])
    assert [line["x0"] for line in pull["layout"]["shapes"]] == [0.5]
    assert "m: share of memes whose answer changes with the order of the options" in plots
    assert "m: flips by wording" in plots
    tables = {block.title: block.rows for block in blocks if isinstance(block, Table)}
    assert tables["Cells"] == [
        ["m", "hi", "zero shot", 40, 0.7, pytest.approx(0.6), pytest.approx(0.8), 0.75, 0.4, 0.05, 0.3]
    ]
    assert tables["Krippendorff's alpha within each country: the ceiling"] == [["in", 0.3]]
    [tiles] = [block.values for block in blocks if isinstance(block, Tiles)]
    assert tiles == {"pulls measured": 2, "with an interval that excludes one half": 1}
    notes = [block.text for block in blocks if isinstance(block, Note)]
    assert notes == [
        "Models were shown the picture of each meme with its text.",
        "No pull can be measured for m: cn (no answers).",
    ]


def test_it_says_that_models_saw_no_pictures(tmp_path: Path) -> None:
    _, blocks = drawn(tmp_path)
    assert "did not see their pictures" in blocks[0].text


def test_figures_without_a_pull_have_no_such_section(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, told(pull=False), build=BUILD, system="toy")
    assert SECTION.collect(find_material(store, "toy")) is None


def test_it_is_part_of_the_page(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built(store, told(pull=True), build=BUILD, system="cross_cultural")
    made = report(find_material(store, "cross_cultural"))
    assert "judgement" in [section["name"] for section in made["sections"]]
    assert "Whose judgement?" in page(made)

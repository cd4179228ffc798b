"""Figures are plain values with the names that plotly knows."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import pytest

from normloom.report.blocks import Plot
from normloom.report.figure_plots import _number
from normloom.report.plots import Series, bars, heat_map, histogram, lines
from normloom.report.sections.results.judgement import _with_half

PLAIN = [Series(name="aligned", values=[0.25, None]), Series(name="other", values=[1, 2], notes=["a", "b"])]
BOUNDED = [Series(name="aligned", values=[0.25, None], low=[0.125, None], high=[0.5, None])]
PLOTS = [
    bars("Bars", ["a", "b"], PLAIN, axis="share"),
    bars("Bars", ["a", "b"], BOUNDED, axis="share", stacked=True, vertical=True, width="third"),
    bars("Bars", ["a", "b"], BOUNDED, axis="share", width="whole"),
    histogram("Counts", [0.0, 0.5, 1.0], PLAIN, axis="margin", counted="rows"),
    heat_map("Map", ["x", "y"], ["row"], [[0.5, None]], scale=(0, 1)),
    lines("Lines", {"one": [(0, 1), (1, 2)], "two": []}, axis="step", value="loss"),
    _with_half(bars("Half", ["a", "b"], PLAIN, axis="share")),
]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: str(plot.title))
def test_plotly_takes_every_name_and_value(plot: Plot) -> None:
    checked = go.Figure(**plot.figure, skip_invalid=False).to_plotly_json()
    assert set(checked["data"][0]) == set(plot.figure["data"][0])
    assert json.loads(json.dumps(plot.figure)) == plot.figure


def test_a_wrong_name_would_be_found() -> None:
    with pytest.raises(ValueError, match="colours"):
        go.Figure(data=[{"type": "bar", "colours": 1}])


@pytest.mark.parametrize(("text", "number"), [("0.5", 0.5), ("4", 4.0), ("overall", None)])
def test_groups_that_are_numbers_are_told_from_others(text: str, number: float | None) -> None:
    assert _number(text) == number

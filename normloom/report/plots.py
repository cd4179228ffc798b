"""The few kinds of plots that the report has, as plotly figures without colours of the page.

Texts come from tables and may hold anything: plotly reads a subset of HTML, so they are escaped. Categories are
drawn at places 0, 1, ... with their names as tick texts, so that no name is taken for a date or a number and two
long names never fall together.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from normloom.report.blocks import Plot, Width

COLOURS = {"aligned": "#3b82f6", "misaligned": "#e8793a", "discarded": "#94a3b8"}
COLOURS |= {"out": "#3b82f6", "dropped": "#e8793a", "quarantined": "#dc2626"}
LONGEST = 44  # characters of a name next to an axis; the whole name shows under the pointer
NARROW = 26  # where there is little room
BAR_HEIGHT, MARGINS, HEIGHT = 22, 90, 360
MANY_COLUMNS = 8  # of numbers that half a page has room for

Numbers = Sequence[float | None]
Scale = tuple[float, float]  # the values of the first and the last colour


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values of one colour, one for each category; `low` and `high` bound their intervals, `notes` are next to them."""

    name: str
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()
    notes: Sequence[str] = ()


def bars(
    title: str,
    categories: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    stacked: bool = False,
    vertical: bool = False,
    width: Width = "half",
) -> Plot:
    """Return bars, side by side or stacked; they lie, as long names need it, unless they are to stand."""
    positions = list(range(len(categories)))
    names = [_whole(name) for name in categories]
    value = "%{y:,.3~f}" if vertical else "%{x:,.3~f}"
    traces = []
    for each in series:
        shown = (
            {"x": positions, "y": each.values} if vertical else {"x": each.values, "y": positions, "orientation": "h"}
        )
        notes = each.notes or [""] * len(names)
        trace = {
            "type": "bar",
            "name": _short(each.name),
            "customdata": [
                [f"{name}<br>{_whole(each.name)}", _note(note)] for name, note in zip(names, notes, strict=True)
            ],
            "hovertemplate": f"%{{customdata[0]}}: {value}%{{customdata[1]}}<extra></extra>",
            "marker": {"color": COLOURS[each.name]} if each.name in COLOURS else {},
            **shown,
        }
        if any(bound is not None for bound in each.low):
            trace["error_y" if vertical else "error_x"] = _interval(each)
        traces.append(trace)
    along = {"title": {"text": _whole(axis)}, "rangemode": "tozero"}
    across = _categories(categories, longest=NARROW if width == "third" else LONGEST)
    thickness = len(categories) if stacked else len(categories) * max(len(series) * 0.6, 1)
    layout = {
        "barmode": "stack" if stacked else "group",
        "xaxis": across if vertical else along,
        "yaxis": along if vertical else {**across, "autorange": "reversed"},
        "height": HEIGHT if vertical else int(MARGINS + BAR_HEIGHT * max(thickness, 3)),
        "showlegend": len(series) > 1,
    }
    return _plot(title, traces, layout, width=width)


def histogram(title: str, edges: Sequence[float], series: Sequence[Series], *, axis: str, counted: str) -> Plot:
    """Return counts between neighbouring edges, one more edge than values, the series stacked."""
    centres = [(low + high) / 2 for low, high in pairwise(edges)]
    widths = [high - low for low, high in pairwise(edges)]
    traces = [
        {
            "type": "bar",
            "name": _short(each.name),
            "x": centres,
            "width": widths,
            "y": each.values,
            "marker": {"color": COLOURS[each.name]} if each.name in COLOURS else {},
        }
        for each in series
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"title": {"text": _whole(axis)}, "range": [edges[0], edges[-1]]},
        "yaxis": {"title": {"text": _whole(counted)}},
        "height": HEIGHT,
        "showlegend": len(series) > 1,
    }
    return _plot(title, traces, layout, width="whole")


def heat_map(
    title: str, columns: Sequence[str], rows: Sequence[str], values: Sequence[Numbers], *, scale: Scale
) -> Plot:
    """Return a heat map with its numbers written in; `values` has one sequence for each row, None for no figure.

    Heat maps of one `scale` have the same colour for the same value.
    """
    hover = [[f"{_whole(row)}, {_whole(column)}" for column in columns] for row in rows]
    trace = {
        "type": "heatmap",
        "z": values,
        "text": hover,
        "texttemplate": "%{z:.3f}",
        "hovertemplate": "%{text}: %{z:.3f}<extra></extra>",
        "hoverongaps": False,
        "autocolorscale": True,
        "zmin": scale[0],
        "zmax": scale[1],
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 10},
    }
    layout = {
        "xaxis": {**_categories(columns), "showgrid": False},
        "yaxis": {**_categories(rows), "autorange": "reversed", "showgrid": False},
        "height": int(MARGINS + 40 + 34 * max(len(rows), 3)),
    }
    return _plot(title, [trace], layout, width="whole" if len(columns) > MANY_COLUMNS else "half")


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, axis: str, value: str) -> Plot:
    """Return lines through points (x, y), a line for each name."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": _short(name),
            "x": [x for x, _ in points],
            "y": [y for _, y in points],
        }
        for name, points in series.items()
    ]
    layout = {
        "xaxis": {"title": {"text": _whole(axis)}},
        "yaxis": {"title": {"text": _whole(value)}, "rangemode": "tozero"},
        "height": HEIGHT,
        "showlegend": len(series) > 1,
    }
    return _plot(title, traces, layout)


def _plot(title: str, traces: list[dict[str, Any]], layout: dict[str, Any], *, width: Width = "half") -> Plot:
    # Importing plotly's classes to validate this takes a quarter of a second, so a test does it instead.
    return Plot(title=title, figure={"data": traces, "layout": layout}, width=width)


def _categories(names: Sequence[str], *, longest: int = LONGEST) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [_short(name, longest) for name in names],
        "ticklabelstandoff": 4,
        "automargin": True,
        "zeroline": False,
    }


def _interval(series: Series) -> dict[str, Any]:
    bounds = list(zip(series.values, series.low, series.high, strict=True))
    above = [0 if value is None or high is None else high - value for value, _, high in bounds]
    below = [0 if value is None or low is None else value - low for value, low, _ in bounds]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}


def _whole(text: str) -> str:
    return html.escape(text, quote=False)


def _short(text: str, longest: int = LONGEST) -> str:
    return _whole(text if len(text) <= longest else f"{text[: longest - 1]}…")


def scale_of(values: Iterable[float]) -> Scale:
    """Return the scale of heat maps: from 0, so that a small difference looks like one, or from below if need be."""
    found = list(values)
    return min(0.0, *found, 0.0), max(0.0, *found, 0.0) or 1.0


def _note(note: str) -> str:
    return f"<br>{_whole(note)}" if note else ""

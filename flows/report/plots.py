"""The few kinds of plots that the report has, as plotly figures without colours of the page.

Texts come from tables and may hold anything: plotly reads a subset of HTML, so they are escaped. Categories are
drawn at places 0, 1, ... with their names as tick texts, so that no name is taken for a date or a number and two
long names never fall together.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from normloom.flows.report.blocks import Plot, Width

COLOURS = {"aligned": "#3b82f6", "misaligned": "#e8793a", "discarded": "#94a3b8"}
LONGEST = 44  # characters of a name beside an axis; the whole one shows under the pointer
NARROW = 26  # where there is little room
LINE = 15  # characters of a line of a node's name
BAR_HEIGHT, MARGINS, HEIGHT = 22, 90, 360
MANY_COLUMNS = 8  # of numbers that half a page has room for

Numbers = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values of one colour, one for each category; `low` and `high` bound their intervals, `notes` show beside them."""

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
    standing: bool = False,
    width: Width = "half",
) -> Plot:
    """Return bars, side by side or stacked; they lie, as long names need it, unless they are to stand."""
    places = list(range(len(categories)))
    names = [_whole(name) for name in categories]
    value = "%{y:,.4~g}" if standing else "%{x:,.4~g}"
    traces = []
    for each in series:
        shown = {"x": places, "y": each.values} if standing else {"x": each.values, "y": places, "orientation": "h"}
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
            trace["error_y" if standing else "error_x"] = _interval(each)
        traces.append(trace)
    along = {"title": {"text": _whole(axis)}, "rangemode": "tozero"}
    across = _categories(categories, longest=NARROW if width == "third" else LONGEST)
    thickness = len(categories) if stacked else len(categories) * max(len(series) * 0.6, 1)
    layout = {
        "barmode": "stack" if stacked else "group",
        "xaxis": across if standing else along,
        "yaxis": along if standing else {**across, "autorange": "reversed"},
        "height": HEIGHT if standing else int(MARGINS + BAR_HEIGHT * max(thickness, 3)),
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


def heat_map(title: str, columns: Sequence[str], rows: Sequence[str], values: Sequence[Numbers]) -> Plot:
    """Return a heat map with its numbers written in; `values` has one sequence for each row, None for no figure."""
    hover = [[f"{_whole(row)}, {_whole(column)}" for column in columns] for row in rows]
    trace = {
        "type": "heatmap",
        "z": values,
        "text": hover,
        "texttemplate": "%{z:.3f}",
        "hovertemplate": "%{text}: %{z:.4f}<extra></extra>",
        "hoverongaps": False,
        "autocolorscale": True,
        **_from_zero([value for row in values for value in row if value is not None]),
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


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Rows that go from one node to another; the colour tells what they are."""

    source: str
    target: str
    value: int
    colour: str


def sankey(title: str, nodes: Mapping[str, str], flows: Sequence[Flow]) -> Plot:
    """Return a flow diagram; `nodes` has a colour for each node's name."""
    places = {name: place for place, name in enumerate(nodes)}
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "valueformat": ",d",
        "valuesuffix": " rows",
        "node": {
            "label": [_broken(name) for name in nodes],
            "color": list(nodes.values()),
            "customdata": [_whole(name) for name in nodes],
            "hovertemplate": "%{customdata}: %{value}<extra></extra>",
            "pad": 20,
            "align": "left",
            "thickness": 14,
            "line": {"width": 0},
        },
        "link": {
            "source": [places[flow.source] for flow in flows],
            "target": [places[flow.target] for flow in flows],
            "value": [flow.value for flow in flows],
            "color": [flow.colour for flow in flows],
        },
    }
    return _plot(title, [trace], {"height": max(HEIGHT, 18 * len(nodes) + 120), "margin": {"r": 90}}, width="whole")


def _plot(title: str, traces: list[dict[str, Any]], layout: dict[str, Any], *, width: Width = "half") -> Plot:
    import plotly.graph_objects as go

    figure = go.Figure(data=traces, layout={"template": "none", **layout}).to_plotly_json()  # checks every name
    figure["layout"].pop("template", None)
    return Plot(title=title, figure=figure, width=width)


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


def _broken(name: str) -> str:
    """Return the name of a node in lines that fit between two columns of nodes."""
    lines = [""]
    for word in re.findall(r"[^_ ]+[_ ]*|[_ ]+", name if len(name) <= NARROW else f"{name[: NARROW - 1]}…"):
        if len(lines[-1]) + len(word) > LINE and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "<br>".join(map(_whole, lines))


def _from_zero(values: Sequence[float]) -> dict[str, float]:
    """Let colours begin at 0, so that a small difference looks like one; below it they are plotly's choice."""
    return {"zmin": 0, "zmax": max(values) or 1} if values and min(values) >= 0 else {}


def _note(note: str) -> str:
    return f"<br>{_whole(note)}" if note else ""

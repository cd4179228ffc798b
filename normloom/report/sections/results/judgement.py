"""Whose judgement models follow: cells of a grid next to the majority class, what each axis changes, the pull of
groups, and how often the order of the options decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from normloom.report.blocks import Block, Note, Plot, Table, Tiles
from normloom.report.material import Material
from normloom.report.plots import Series, bars, heat_map, scale_of
from normloom.report.section import Data, Section
from normloom.schemas.tables import FIGURES

CHANGE, FLIPS, PULL = "macro_f1_change", "position_flips", "sides_with"
_WANTED = ("agreement", "alpha", "accuracy", "macro_f1", "macro_f1_of_majority", "failure", FLIPS, CHANGE)
_HALF = 0.5  # of answers that side with a group if nothing pulls
_LINE = "#94a3b8"  # seen on light and on dark
Row = Mapping[str, Any]


def collect(material: Material) -> Data | None:
    """Return the figures of models and groups, and whether models were shown pictures."""
    stages = material.having(*FIGURES.columns)
    if not stages:
        return None
    wanted = pl.col("metric").is_in(_WANTED) | pl.col("metric").str.starts_with(PULL)
    rows = [
        row
        for stage in stages
        for row in material.rows(stage).select(*FIGURES.columns).filter(wanted).collect().iter_rows(named=True)
    ]
    if not any(row["metric"].startswith(PULL) for row in rows):
        return None
    asked = material.having("context", "question", "images")
    shown = [material.rows(stage).select((pl.col("images").list.len() > 0).any()).collect().item() for stage in asked]
    return {"figures": rows, "pictures": any(shown) if shown else None}


def draw(data: Data) -> Iterator[Block]:
    """Show cells, changes, pull and flips, each with its interval."""
    figures = data["figures"]
    told = [row for row in figures if row["undefined"] is None]
    if data["pictures"] is not None:
        yield Note(
            text="Models were shown the picture of each meme with its text."
            if data["pictures"]
            else "Models were asked about the texts of memes and did not see their pictures."
        )
    yield from _cells(told)
    yield from _changes(told)
    yield from _pull(told, figures)
    yield from _flips(told)


def _cells(told: Sequence[Row]) -> Iterator[Block]:
    """Show macro-F1 of each language and cell, minus that of the majority class, and all of it as a table."""
    found = {
        (row["metric"], row["of"], row["slice"], row["axis"]): row for row in told if row["slice_by"] == "language"
    }
    scored = [row for row in told if row["metric"] == "macro_f1"]
    gains = {}
    for row in scored:
        base = found.get(("macro_f1_of_majority", row["of"], row["slice"], row["axis"]))
        if base:
            gains[row["of"], row["slice"], row["axis"]] = row["value"] - base["value"]
    scale = scale_of(gains.values()) if gains else (0.0, 1.0)
    for model in _each(scored, "of"):
        cells, languages = (_each([row for row in scored if row["of"] == model], name) for name in ("axis", "slice"))
        yield heat_map(
            f"{model}: macro-F1 above the majority class",
            languages,
            cells,
            [[gains.get((model, language, cell)) for language in languages] for cell in cells],
            scale=scale,
        )
    if not scored:
        return
    columns = ("accuracy", "macro_f1_of_majority", "failure", FLIPS)
    rows = [
        [
            row["of"],
            row["slice"],
            row["axis"],
            row["rows"],
            *(row[name] for name in ("value", "low", "high")),
            *((found.get((name, row["of"], row["slice"], row["axis"])) or {}).get("value") for name in columns),
        ]
        for row in scored
    ]
    headings = ("model", "language", "cell", "answers", "macro-F1", "low", "high", "accuracy", "macro-F1 of majority")
    yield Table(title="Cells", headings=(*headings, "failures", "flips"), rows=rows, folded=True)


def _changes(told: Sequence[Row]) -> Iterator[Block]:
    changes = [row for row in told if row["metric"] == CHANGE]
    for model in _each(changes, "of"):
        own = [row for row in changes if row["of"] == model]
        languages = _each(own, "slice")
        series = [
            _series(axis, languages, {row["slice"]: row for row in own if row["axis"] == axis})
            for axis in _each(own, "axis")
        ]
        yield bars(
            f"{model}: what each axis changes in macro-F1", languages, series, axis="macro-F1 with minus without"
        )


def _pull(told: Sequence[Row], figures: Sequence[Row]) -> Iterator[Block]:
    """Show agreement with groups next to alpha within them, and the pull."""
    for slice_by in [one for one in _each(told, "slice_by") if one not in {"language", "wording"}]:
        name = "each country" if slice_by == "overall" else slice_by
        mine = [row for row in told if row["slice_by"] == slice_by]
        pulled = [row for row in mine if row["metric"].startswith(PULL)]
        models = _each([row for row in figures if row["metric"].startswith(PULL)], "of")
        agreed = [row for row in mine if row["metric"] == "agreement" and row["of"] in models]
        groups = _each(agreed, "axis")
        if groups:
            series = [
                _series(model, groups, {row["axis"]: row for row in agreed if row["of"] == model}) for model in models
            ]
            yield bars(f"Agreement with the labels of {name}", groups, series, axis="share of answers")
        for metric in _each(pulled, "metric"):
            own = [row for row in pulled if row["metric"] == metric]
            pairs = _each(own, "axis")
            series = [
                _series(model, pairs, {row["axis"]: row for row in own if row["of"] == model}) for model in models
            ]
            towards = metric.removeprefix(f"{PULL}_") if metric != PULL else "the first, where both differ"
            yield _with_half(bars(f"Side with {towards}", pairs, series, axis="share"))
        alphas = {row["of"]: row["value"] for row in mine if row["metric"] == "alpha"}
        if alphas:
            rows = [[group, value] for group, value in alphas.items()]
            yield Table(
                title=f"Krippendorff's alpha within {name}: the ceiling", headings=("group", "alpha"), rows=rows
            )
    lacking = [row for row in figures if row["metric"].startswith(PULL) and row["undefined"] is not None]
    if lacking:
        names = ", ".join(dict.fromkeys(f"{row['of']}: {row['axis']} ({row['undefined']})" for row in lacking))
        yield Note(text=f"No pull can be measured for {names}.")
    clear = sum(not row["low"] <= _HALF <= row["high"] for row in told if row["metric"].startswith(PULL))
    yield Tiles(
        values={
            "pulls measured": len([row for row in told if row["metric"].startswith(PULL)]),
            "with an interval that excludes one half": clear,
        }
    )


def _flips(told: Sequence[Row]) -> Iterator[Block]:
    """Show the share of answers that change with the order of the options, cell by cell or by wording."""
    flips = [row for row in told if row["metric"] == FLIPS]
    of_cells = [row for row in flips if row["slice_by"] == "language"]
    scale = scale_of(row["value"] for row in of_cells) if of_cells else (0.0, 1.0)
    for model in _each(of_cells, "of"):
        own = {(row["axis"], row["slice"]): row["value"] for row in of_cells if row["of"] == model}
        cells, languages = ([*dict.fromkeys(key[part] for key in own)] for part in (0, 1))
        yield heat_map(
            f"{model}: share of memes whose answer changes with the order of the options",
            languages,
            cells,
            [[own.get((cell, language)) for language in languages] for cell in cells],
            scale=scale,
        )
    by_wording = [row for row in flips if row["slice_by"] == "wording"]
    for model in _each(by_wording, "of"):
        own_rows = {f"wording {row['slice']}": row for row in by_wording if row["of"] == model}
        names = list(own_rows)
        yield bars(f"{model}: flips by wording", names, [_series(model, names, own_rows)], axis="share of memes")


def _series(name: str, places: Sequence[str], rows: Mapping[str, Row]) -> Series:
    values, low, high = ([rows[at][part] if at in rows else None for at in places] for part in ("value", "low", "high"))
    return Series(name=name, values=values, low=low, high=high)


def _with_half(plot: Plot) -> Plot:
    """Return bars with a line at one half."""
    line = {"type": "line", "x0": _HALF, "x1": _HALF, "yref": "paper", "y0": 0, "y1": 1}
    line |= {"line": {"dash": "dot", "color": _LINE, "width": 2}}
    layout = {**plot.figure["layout"], "shapes": [line]}
    return Plot(title=plot.title, figure={**plot.figure, "layout": layout}, width=plot.width)


def _each(rows: Sequence[Row], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows))


SECTION = Section(name="judgement", title="Whose judgement?", collect=collect, draw=draw)

"""Several aims at once: what each system is worth on each axis, who paid for what, and how sure the router is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from normloom.report.blocks import Block, Note, Table
from normloom.report.figure_plots import named
from normloom.report.material import Material
from normloom.report.plots import Series, bars, lines
from normloom.report.section import Data, Section
from normloom.schemas.tables import FIGURES
from normloom.schemas.training.alignx_tables import DEV, JUDGED, RELIABILITY, TEST
from normloom.tasks.tradeoff.axis_figures import AXIS, COUNTS, HEADLINES, RATES, REFERENCE_WORDS, VALID, WORDS
from normloom.tasks.tradeoff.calibration import BRIER, CHANGE, ECE, TEMPERATURE, UNCALIBRATED
from normloom.tasks.tradeoff.conflict import APART, CORRELATION, PAID, PROMPTS, SYSTEMS

Row = Mapping[str, Any]
WIN_RATE = f"{RATES['win']}_{VALID}"
_LOWER = "lower is better"
_UNJUDGED = 20  # rows that are listed
_NUMBERS = ("value", "low", "high", "rows")


def collect(material: Material) -> Data | None:
    """Return the figures of axes, conflicts and calibration, bins, and replies that nobody could judge."""
    judged, bins = material.having(*JUDGED.columns), material.having(*RELIABILITY.columns)
    if not judged and not bins:
        return None
    figures = [
        row
        for stage in material.having(*FIGURES.columns)
        for row in material.rows(stage).select(*FIGURES.columns).collect().iter_rows(named=True)
    ]
    calibrated = (ECE, BRIER, f"{ECE}_{CHANGE}", f"{BRIER}_{CHANGE}", TEMPERATURE)
    failed = [
        material.rows(stage)
        .filter(pl.col("value").is_null())
        .select("row_id", "prompt_id", "axis", "system", "measure", "judge", "parse_status")
        .collect()
        for stage in judged
    ]
    return {
        "axes": [row for row in figures if row["slice_by"] == AXIS],
        "conflict": [row for row in figures if row["metric"] in {CORRELATION, APART, PAID}],
        "calibration": [row for row in figures if row["metric"] in calibrated],
        "bins": [
            row
            for stage in bins
            for row in material.rows(stage).select(*RELIABILITY.columns).collect().iter_rows(named=True)
        ],
        "unjudged": pl.concat(failed).rows() if failed else [],
    }


def draw(data: Data) -> Iterator[Block]:
    """Show each axis before anything over several."""
    yield from _axes(data["axes"])
    yield from _lengths(data["axes"])
    yield from _conflict(data["conflict"])
    yield from _calibration(data["calibration"], data["bins"])
    if data["unjudged"]:
        shown = data["unjudged"][:_UNJUDGED]
        yield Note(text="A reply that could not be judged has no value; over all rows it counts with the worst one.")
        yield Table(
            title=f"Replies without a judgement: {len(data['unjudged']):,}, the first {len(shown)}",
            headings=("row", "prompt", "axis", "system", "measure", "judge", "why"),
            rows=shown,
            folded=True,
        )


def _headline(axis: str) -> tuple[str, int]:
    metric, sign = HEADLINES.get(axis, (RATES["good"], 1))
    return f"{metric}_{VALID}", sign


def _axes(figures: Sequence[Row]) -> Iterator[Block]:
    axes = list(dict.fromkeys(row["slice"] for row in figures))
    if len(axes) > 1:
        yield Note(text="Each axis on its own: an average over axes hides who paid. Whiskers are 95 % intervals.")
    for axis in axes:
        metric, sign = _headline(axis)
        own = [row for row in figures if row["slice"] == axis and row["metric"] == metric and row["value"] is not None]
        systems = list(dict.fromkeys(row["of"] for row in own))
        series = []
        for judge in dict.fromkeys(row["axis"] for row in own):
            found = {row["of"]: row for row in own if row["axis"] == judge}
            there: list[Row] = [found.get(system, {}) for system in systems]
            values, low, high = ([row.get(bound) for row in there] for bound in ("value", "low", "high"))
            series.append(Series(name=judge, values=values, low=low, high=high))
        if series:
            title = f"{axis}: {named(metric)}{f' ({_LOWER})' if sign < 0 else ''}"
            yield bars(title, systems, series, axis="share", width="third" if len(axes) > 1 else "whole")


def _lengths(figures: Sequence[Row]) -> Iterator[Block]:
    """Show wins with the length of replies, which judges tend to like."""
    found = {(row["slice"], row["of"], row["axis"], row["metric"]): row for row in figures}
    shown = []
    for row in (one for one in figures if one["metric"] == WIN_RATE):
        whose = (row["slice"], row["of"], row["axis"])
        names = (*COUNTS, "unjudged", f"{WORDS}_win", REFERENCE_WORDS)
        known: list[Row] = [found.get((*whose, name), {}) for name in names]
        shown.append([*whose, *(row[name] for name in _NUMBERS[:3]), *(one.get("value") for one in known)])
    if shown:
        yield Table(
            title="Win rates with the length of replies: a judge tends to like the longer one",
            headings=(
                *("axis", "system", "judge", "win rate", "low", "high", *COUNTS, "unjudged"),
                *("words", "words of the reference"),
            ),
            rows=shown,
        )


def _conflict(figures: Sequence[Row]) -> Iterator[Block]:
    over = [row for row in figures if row["metric"] in {CORRELATION, APART}]
    if over:
        yield Note(
            text="Axes conflict if what raises one lowers the other: a correlation below 0, many with one up and the "
            "other down. An interval that includes 0 is not a finding."
        )
        yield Table(
            title="Conflict between axes",
            headings=("axes", "over", "figure", *_NUMBERS, "why none"),
            rows=[
                [row["axis"], row["of"], named(row["metric"]), *(row[name] for name in _NUMBERS), row["undefined"]]
                for row in sorted(over, key=lambda row: (row["of"] != SYSTEMS, row["of"] != PROMPTS))
            ],
        )
    paid = [row for row in figures if row["metric"] == PAID and row["value"] is not None]
    if paid:
        systems = list(dict.fromkeys(row["of"] for row in paid))
        ways = list(dict.fromkeys(row["axis"] for row in paid))
        found = {(row["of"], row["axis"]): row for row in paid}
        series = []
        for way in ways:
            there: list[Row] = [found.get((system, way), {}) for system in systems]
            values, low, high = ([row.get(bound) for row in there] for bound in ("value", "low", "high"))
            won, _, lost = way.partition(" to ")
            series.append(Series(name=f"{won} up, {lost} down", values=values, low=low, high=high))
        yield bars(
            "Who paid for what: share of prompts, against the base", systems, series, axis="share", width="whole"
        )


def _calibration(figures: Sequence[Row], bins: Sequence[Row]) -> Iterator[Block]:
    split = TEST if any(row["split"] == TEST for row in bins) else DEV
    kinds: dict[str, list[tuple[float, float]]] = {}
    for row in bins:
        if row["split"] == split and row["accuracy"] is not None:
            kinds.setdefault(row["of"], []).append((row["confidence"], row["accuracy"]))
    if kinds:
        ideal = {"as sure as right": [(0.0, 0.0), (1.0, 1.0)]}
        yield lines(
            f"Reliability of the router, {split} rows", {**ideal, **kinds}, axis="confidence", value="share right"
        )
        known = [row for row in bins if row["split"] == split and row["rows"]]
        yield Table(
            title=f"Bins, {split} rows",
            headings=("probabilities", "from", "to", "rows", "confidence", "share right"),
            rows=[[row[name] for name in ("of", "low", "high", "rows", "confidence", "accuracy")] for row in known],
            folded=True,
        )
    if figures:
        yield Table(
            title=f"Calibration: a change is the difference to {UNCALIBRATED} probabilities over the same rows",
            headings=("split", "probabilities", "figure", *_NUMBERS),
            rows=[
                [row["slice"], row["of"], named(row["metric"]), *(row[name] for name in _NUMBERS)] for row in figures
            ],
        )


SECTION = Section(name="axes", title="What each axis won and paid", collect=collect, draw=draw)

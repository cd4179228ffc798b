"""Figures that the papers printed, next to ours; never in one plot, since other models made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.report.blocks import Block, Note, Table, rounded
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.report.sections.data.duplicates import CHANCE
from normloom.report.sections.results.labels import COLUMNS as LABEL_COLUMNS
from normloom.schemas.reference_figures import ReferenceFigure, reference_figures
from normloom.schemas.tables import FIGURES

WHOLE = {"slice_by": "overall", "slice": "all"}
SIMHASH = {"slice_by": "method", "slice": "simhash"}
_PICK = {"smallest": min, "largest": max}
_UNITS = {"%": 100.0}


def collect(material: Material) -> Data | None:
    """Return each printed figure of the system with ours of the same metric and slice, in the same unit."""
    printed = reference_figures(material.lock.system)
    if not printed:
        return None
    ours = _ours(material)
    return {
        "figures": [
            {**reference.model_dump(exclude={"system"}), "ours": _like(ours, reference)} for reference in printed
        ]
    }


def _ours(material: Material) -> list[dict[str, Any]]:
    """Return the figures of this build that a paper may have printed too."""
    models = ", ".join(material.model_names) or "no model"
    found: list[dict[str, Any]] = []

    def note(metric: str, value: float | None, *, of: str = models, **where: str) -> None:
        if value is not None:
            found.append({"metric": metric, "axis": "", **WHOLE, **where, "value": value, "of": of})

    manifests = material.manifests
    if "publish" in manifests:
        note("released_rows", manifests["publish"].count("rows"))
    for stage in material.having(*LABEL_COLUMNS)[:1]:
        note("labels", material.manifests[stage].count("rows"), of="no model")
    for manifest in manifests.values():
        if CHANCE in manifest.metrics and manifest.rows_in:
            note("removed_share", manifest.count("dropped") / manifest.rows_in, of="no model", **SIMHASH)
        note("leakage", manifest.metrics.get("leakage"), of="no model", **SIMHASH)
    for stage in material.having(*FIGURES.columns):
        defined = material.rows(stage).filter(pl.col("value").is_not_null())
        found += defined.select("metric", "axis", "slice_by", "slice", "value", "of").collect().iter_rows(named=True)
    return found


def _like(ours: list[dict[str, Any]], reference: ReferenceFigure) -> list[dict[str, Any]]:
    """Return ours of the same metric and slice; of several of one model those that the paper speaks of."""
    factor = _UNITS.get(reference.unit, 1.0)
    same: dict[str, list[float]] = {}
    for figure in ours:
        alike = all(figure[name] == getattr(reference, name) for name in ("metric", "slice_by", "slice"))
        if alike and reference.axis in {"", figure["axis"]}:
            same.setdefault(figure["of"], []).append(factor * figure["value"])
    return [
        {"models": of, "value": value}
        for of, values in same.items()
        for value in ([_PICK[reference.pick](values)] if reference.pick else values)
    ]


def draw(data: Data) -> Iterator[Block]:
    """Show the table."""
    yield Note(
        text="The printed figures come from other models, other prompts and sometimes other formulas: they show an "
        "order of magnitude and are not a target."
    )
    yield Table(
        title="Printed by the papers, and ours",
        headings=("figure", "ours", "our models", "paper", "its models", "source"),
        rows=[
            [
                figure["figure"],
                "; ".join(_shown(each["value"], figure["unit"]) for each in figure["ours"]) or "not measured",
                "; ".join(each["models"] for each in figure["ours"]) or "-",
                _shown(figure["value"], figure["unit"]),
                figure["models"],
                figure["source"],
            ]
            for figure in data["figures"]
        ],
    )


def _shown(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if unit == "rows" else rounded(value)
    return f"{number} {unit}".strip()


SECTION = Section(name="references", title="Figures of the papers", collect=collect, draw=draw)

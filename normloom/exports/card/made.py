"""The parts of a card that tables tell: how rows were made, by which models and settings, and the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from normloom.core.rows.text import exact
from normloom.exports.card.markdown import code, table, text
from normloom.exports.card.model_licences import model_licence
from normloom.history.public import public
from normloom.models.registry import is_random
from normloom.report.material import Material
from normloom.report.sections import head
from normloom.report.sections.data import rows
from normloom.schemas.tables import AGREEMENT, FIGURES
from normloom.schemas.training.preference_tables import CHECKED

TEXT_SHOWN = 60  # characters of a setting
LIST_SHOWN = 8  # entries of a setting
FIGURES_SHOWN = 60  # of one table
_INTERNAL = {"source", "items", "taxonomies", "template"}  # arguments that are data or long texts


def stages(material: Material) -> list[str]:
    """Return what became of the rows, stage by stage."""
    models = {stage: public(model.get("model", "")) for stage, model in material.models.items()}
    return table(
        ("stage", "reads", "model", "in", "out", "dropped", "quarantined", "why"),
        (
            (
                code(stage["stage"]),
                text(", ".join(stage["reads"])),
                text(models.get(stage["stage"])),
                *(text(stage[name]) for name in ("rows_in", "rows", "dropped", "quarantined")),
                text(_counted({**stage["dropped_by"], **stage["quarantined_by"]})),
            )
            for stage in rows.collect(material)["stages"]
        ),
    )


def models(materials: Sequence[Material]) -> list[str]:
    """Return the models with revision, engine and licence; stages of another system than the first with its name."""
    return table(
        ("model", "revision", "licence", "engine", "data type", "stages"),
        (
            (
                text(public(model["model"])),
                text(model["revision"]),
                text(_licence_of(model)),
                text(model["engine"]),
                text(model["dtype"]),
                ", ".join(code(f"{of}{stage}") for stage in model["stages"]),
            )
            for material in materials
            for of in ["" if material is materials[0] else f"{material.lock.system}/"]
            for model in head.collect(material)["models"]
        ),
    )


def _licence_of(model: Mapping[str, str]) -> str:
    if is_random(model["engine"]):
        return "none: a scripted test model"
    return model_licence(model["model"], model["revision"]) or "unknown"


def settings(material: Material) -> list[str]:
    """Return thresholds and other settings of each stage, as they are in its key."""
    told = {
        stage: ", ".join(f"{name} {value}" for name, value in _flat(manifest.key_fields.get("arguments") or {}))
        for stage, manifest in material.manifests.items()
    }
    grouped: dict[str, list[str]] = {}
    for stage, values in told.items():
        if values:
            grouped.setdefault(values, []).append(stage)
    return table(
        ("stages", "settings"),
        ((", ".join(code(stage) for stage in named), text(public(values))) for values, named in grouped.items()),
    )


def figures(material: Material) -> Iterator[str]:
    """Yield each table of figures over all rows, with 95 % intervals, agreement with reference labels, and checks."""
    for stage in material.having(*FIGURES.columns):
        found = material.rows(stage).filter(slice_by="overall").sort("metric", "axis", "of").collect()
        headings = ("figure", "of", "axis", "value", "95 % interval", "rows")
        lines = table(headings, (_figure(row) for row in found.head(FIGURES_SHOWN).iter_rows(named=True)))
        yield from _titled(stage, lines, found.height)
    for stage in material.having(*AGREEMENT.columns):
        found = material.rows(stage).collect()
        headings = ("dimension", "measure", "value", "95 % interval", "by the most frequent label", "counted")
        lines = table(headings, (_agreement(row) for row in found.head(FIGURES_SHOWN).iter_rows(named=True)))
        yield from _titled(stage, lines, found.height)
    for stage in material.having(*CHECKED.columns):
        found = material.rows(stage).collect()
        lines = table(
            ("check", "of", "asks", "found", "holds"), map(_check, found.head(FIGURES_SHOWN).iter_rows(named=True))
        )
        yield from _titled(stage, lines, found.height)


def undefined(material: Material) -> int:
    """Return how many figures over all rows have no value."""
    return sum(
        material.rows(stage).filter(pl.col("undefined").is_not_null()).select(pl.len()).collect().item()
        for stage in material.having(*FIGURES.columns)
    )


def _titled(stage: str, lines: list[str], count: int) -> Iterator[str]:
    if lines:
        yield from (f"### {stage}", "", *lines)
        if count > FIGURES_SHOWN:
            yield from (f"And {count - FIGURES_SHOWN:,} more, in the table {code(stage)}.", "")


def _figure(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(text(row[name]) for name in ("metric", "of", "axis")), *_value(row), text(row["rows"]))


def _agreement(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (text(row["dimension"]), text(row["measure"]), *_value(row), text(row["prior"]), text(row["rows"]))


def _check(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(text(row[name]) for name in ("check", "of", "asks", "found")), "yes" if row["passed"] else "**no**")


def _value(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["value"] is None:
        return "-", f"undefined: {text(row['undefined'])}"
    return text(row["value"]), "-" if row["low"] is None else f"{text(row['low'])} to {text(row['high'])}"


def _flat(arguments: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings that can be shown in a line: names with dots, and values."""
    for name, value in arguments.items():
        if name in _INTERNAL or value is None:
            continue
        if isinstance(value, Mapping):
            if "sections" in value:  # a template, a long text
                continue
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float):
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else exact(value)
        elif isinstance(value, str) and value and len(value) <= TEXT_SHOWN:
            yield f"{prefix}{name}", value
        elif isinstance(value, list | tuple) and value and all(isinstance(one, str | int | float) for one in value):
            more = ", ..." if len(value) > LIST_SHOWN else ""
            yield f"{prefix}{name}", f"[{', '.join(map(str, value[:LIST_SHOWN]))}{more}]"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in reasons.items())

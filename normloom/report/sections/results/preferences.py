"""Preference pairs: by model and reason, their margins, shortcuts and checks; how training went and what it changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from normloom.core.rows.text import counted
from normloom.report.blocks import Block, Note, Table
from normloom.report.material import Material
from normloom.report.plots import Series, bars, histogram, lines
from normloom.report.section import Data, Section
from normloom.schemas.tables import FIGURES
from normloom.schemas.training.preference_tables import CHECKED, CONTENT, CURVE, FORMAT, MEASURED, PAIRS, SHORTCUT_LIMIT

BINS = 40
AUC = "auc"
HELD_OUT = ("reward_accuracy", "dpo_loss", "reward_margin")
BOTH_WAYS = tuple(f"{name}_{over}" for name in MEASURED for over in ("all", "valid"))


def collect(material: Material) -> Data | None:
    """Return the pairs of each method, and of shortcuts, checks, curves and policies what the build has."""
    stages = material.having(*PAIRS.columns)
    if not stages:
        return None
    pairs = pl.concat(
        [
            material.rows(stage).select(
                "method", "chosen_model", "rejected_model", "rejected_kind", "margin", "dialogue"
            )
            for stage in stages
        ]
    ).collect()
    figures = [
        row
        for stage in material.having(*FIGURES.columns)
        for row in material.rows(stage).filter(slice_by="overall").collect().iter_rows(named=True)
    ]
    checks = [
        row
        for stage in material.having(*CHECKED.columns)
        for row in material.rows(stage).select(*CHECKED.columns).collect().iter_rows(named=True)
    ]
    curves = {
        stage: material.rows(stage).select("step", "reward_accuracy").sort("step").collect().rows()
        for stage in material.having(*CURVE.columns)
    }
    return {
        "methods": {str(method): _method(made) for (method,), made in pairs.group_by("method", maintain_order=True)},
        "shortcuts": [row for row in figures if row["metric"] == AUC],
        "checks": checks,
        "curves": curves,
        "held_out": [row for row in figures if row["metric"] in HELD_OUT],
        "policies": _policies(figures),
    }


def _method(pairs: pl.DataFrame) -> dict[str, Any]:
    chosen = dict(pairs.group_by("chosen_model").len().iter_rows())
    rejected = {
        (model, kind): count
        for model, kind, count in pairs.group_by("rejected_model", "rejected_kind").len().iter_rows()
    }
    models = sorted({*chosen, *(model for model, _ in rejected)})
    kinds = {kind: _counts(pairs.filter(rejected_kind=kind)["margin"].drop_nulls()) for kind in (CONTENT, FORMAT)}
    return {
        "pairs": pairs.height,
        "prompts": pairs["dialogue"].n_unique(),
        "models": [
            {
                "model": model,
                "chosen": chosen.get(model, 0),
                CONTENT: rejected.get((model, CONTENT), 0),
                FORMAT: rejected.get((model, FORMAT), 0),
            }
            for model in models
        ],
        "margins": kinds if pairs["margin"].count() else None,
    }


def _counts(margins: pl.Series) -> list[int]:
    """Return how many margins are in each of the bins over [0, 1]."""
    counts = [0] * BINS
    for margin in margins:
        counts[min(max(int(margin * BINS), 0), BINS - 1)] += 1
    return counts


def _policies(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = [row["of"] for row in figures if row["metric"] == "failure"]
    found = {(row["of"], row["metric"]): row["value"] for row in figures}
    return [
        {"policy": policy, **{name: found.get((policy, name)) for name in ("failure", "seconds", *BOTH_WAYS)}}
        for policy in named
    ]


def draw(data: Data) -> Iterator[Block]:
    """Show them, warnings first."""
    for row in data["shortcuts"]:
        if row["value"] is not None and row["value"] > SHORTCUT_LIMIT:
            yield Note(
                text=f"The {row['of']} of a reply alone tells chosen from rejected in {row['axis']} pairs (area under "
                f"the curve {row['value']:.3f}): a policy trained on them may learn just that.",
                warning=True,
            )
    yield from _failed(data["checks"])
    for name, method in data["methods"].items():
        yield from _pairs(name, method)
    yield from _shortcuts(data["shortcuts"])
    yield from _training(data)
    yield from _evaluated(data["policies"])


def _failed(checks: list[dict[str, Any]]) -> Iterator[Block]:
    if checks:
        yield Table(
            title="Checks",
            headings=("check", "of", "asks", "found", "passed"),
            rows=[
                [*(one[name] for name in ("check", "of", "asks", "found")), "yes" if one["passed"] else "no"]
                for one in checks
            ],
        )


def _pairs(name: str, method: dict[str, Any]) -> Iterator[Block]:
    models = [row["model"] for row in method["models"]]
    series = [
        Series(name="chosen", values=[row["chosen"] for row in method["models"]]),
        Series(name="rejected for its content", values=[row[CONTENT] for row in method["models"]]),
        Series(name="rejected for its format", values=[row[FORMAT] for row in method["models"]]),
    ]
    title = f"{name}: {counted(method['pairs'], 'pair')} over {counted(method['prompts'], 'prompt')}"
    yield bars(title, models, series, axis="pairs", width="whole" if method["margins"] else "half")
    if method["margins"]:
        edges = [number / BINS for number in range(BINS + 1)]
        kinds = [Series(name=f"rejected for its {kind}", values=counts) for kind, counts in method["margins"].items()]
        yield histogram(f"{name}: margins", edges, kinds, axis="margin", counted="pairs")


def _shortcuts(shortcuts: list[dict[str, Any]]) -> Iterator[Block]:
    if shortcuts:
        yield Table(
            title="How well one feature alone tells chosen from rejected",
            headings=("pairs", "feature", "area under the curve", "low", "high", "pairs counted"),
            rows=[[row[name] for name in ("axis", "of", "value", "low", "high", "rows")] for row in shortcuts],
        )


def _training(data: Data) -> Iterator[Block]:
    if data["curves"]:
        yield lines("Training: pairs in order", data["curves"], axis="step", value="share")
    if data["held_out"]:
        yield Table(
            title="Held-out pairs",
            headings=("policy", "figure", "value", "low", "high", "pairs"),
            rows=[[row[name] for name in ("of", "metric", "value", "low", "high", "rows")] for row in data["held_out"]],
        )


def _evaluated(policies: list[dict[str, Any]]) -> Iterator[Block]:
    if policies:
        yield Note(text="Over all replies a failure counts with the worst value of a signal; valid replies parsed.")
        columns = ("failure", "seconds", *BOTH_WAYS)
        yield Table(
            title="Policies on validation prompts",
            headings=("figure", *(row["policy"] for row in policies)),
            rows=[[name.replace("_", " "), *(row[name] for row in policies)] for name in columns],
        )


SECTION = Section(name="preferences", title="Preference pairs", collect=collect, draw=draw)

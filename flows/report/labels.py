"""Labels before and after expansion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from normloom.flows.report.blocks import Block, Note, Tiles
from normloom.flows.report.material import Material
from normloom.flows.report.plots import Series, bars
from normloom.flows.report.section import Data, Section

COLUMNS = ("dimension", "label", "before", "quota", "added", "missing")


def collect(material: Material) -> Data | None:
    """Return the prompts of each label, from the first table that counts them."""
    stages = material.having(*COLUMNS)
    if not stages:
        return None
    counts = material.rows(stages[0]).select(COLUMNS).collect()
    return {"stage": stages[0], "by": _by(material), "labels": list(counts.iter_rows(named=True))}


def _by(material: Material) -> str | None:
    """Say which route the labels came by: what was asked or embedded, with which model."""
    for stage in ("embed", "score_labels"):
        if stage in material.models:
            model = material.models[stage].get("model", "no model")
            if stage == "embed":
                return f"cosines of embeddings by {model}"
            asked = "labels of a shortlist" if "shortlist" in material.manifests else "every label"
            return f"yes/no questions about {asked}, asked of {model}"
    return None


def draw(data: Data) -> Iterator[Block]:
    """Show a panel for each dimension."""
    labels = data["labels"]
    if data["by"]:
        yield Note(text=f"Labels come from {data['by']}. A prompt may have several.")
    short = [label for label in labels if label["missing"]]
    yield Tiles(
        values={
            "labels": len(labels),
            "with prompts": sum(label["before"] + label["added"] > 0 for label in labels),
            "expanded": sum(label["quota"] > 0 for label in labels),
            "quotas missed": len(short),
        }
    )
    for dimension, group in groupby(labels, key=lambda label: label["dimension"]):
        there = sorted(group, key=lambda label: -(label["before"] + label["added"]))
        yield bars(
            f"{dimension}: prompts of each label",
            [label["label"].partition("/")[2] or label["label"] for label in there],
            [
                Series(name="from the source", values=[label["before"] for label in there]),
                Series(
                    name="by expansion",
                    values=[label["added"] for label in there],
                    notes=[f"quota {label['quota']:,}, missing {label['missing']:,}" for label in there],
                ),
            ],
            axis="prompts",
            stacked=True,
            width="third",
        )


SECTION = Section(name="labels", title="Labels before and after expansion", collect=collect, draw=draw)

"""Labels before and after expansion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from normloom.report.blocks import Block, Note, Table, Tiles
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section
from normloom.schemas.tables import AGREEMENT

COLUMNS = ("dimension", "label", "before", "quota", "added", "missing")

MEASURES = {
    "precision": "precision of kept labels",
    "recall": "recall of kept labels",
    "top1": "top-1 label",
    "macro_recall": "macro recall of the top-1 label",
}


def collect(material: Material) -> Data | None:
    """Return the prompts of each label, from the first table that counts them."""
    stages = material.having(*COLUMNS)
    if not stages:
        return None
    counts = material.rows(stages[0]).select(COLUMNS).collect()
    measured = [
        material.rows(stage).select(AGREEMENT.columns.keys()).collect() for stage in material.having(*AGREEMENT.columns)
    ]
    return {
        "stage": stages[0],
        "by": _by(material),
        "labels": list(counts.iter_rows(named=True)),
        "quality": [row for table in measured for row in table.iter_rows(named=True)],
    }


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
    if data["quality"]:
        yield from _quality(data["quality"])
    for dimension, group in groupby(labels, key=lambda label: label["dimension"]):
        everything = list(group)
        there = sorted(filter(_counts, everything), key=lambda label: -(label["before"] + label["added"]))
        if there:
            yield bars(
                f"{dimension}: prompts of each label",
                [_name(label) for label in there],
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
    headings = ("dimension", "label", "before", "added", "quota", "missing")
    yield Table(
        title=f"Show all {len(labels)} labels",
        headings=headings,
        rows=[[label["dimension"], _name(label), *(label[name] for name in headings[2:])] for label in labels],
        folded=True,
    )


def _counts(label: Mapping[str, Any]) -> bool:
    return bool(label["before"] or label["added"] or label["quota"])


def _name(label: Mapping[str, Any]) -> str:
    return str(label["label"].partition("/")[2] or label["label"])


def _quality(measured: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """Show how far labels agree with the source's own."""
    yield Note(
        text="Compared with the source's labels. Kept labels are those that are released; top-1 is the "
        "likeliest label of a prompt with a reference label, kept or not. The prior always predicts the most "
        "frequent label."
    )
    yield Table(
        title="Label quality",
        headings=("dimension", "measure", "value", "low", "high", "n", "prior", "why there is none"),
        rows=[
            [
                row["dimension"],
                MEASURES.get(row["measure"], row["measure"]),
                *(row[name] for name in ("value", "low", "high", "rows", "prior")),
                row["undefined"] or "",
            ]
            for row in measured
        ],
    )


SECTION = Section(name="labels", title="Labels before and after expansion", collect=collect, draw=draw)

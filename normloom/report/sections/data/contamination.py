"""Decontamination: which benchmarks a release was compared with, and what it had of them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.report.blocks import Block, Note, Table, rounded
from normloom.report.material import Material
from normloom.report.section import Data, Section
from normloom.schemas.contamination_tables import CONTAMINATION, ITEMS

SHOWN = 20
CUT = 200  # characters of a text


def collect(material: Material) -> Data | None:
    """Return for each benchmark what was found, and the clearest cases."""
    stages = material.having(*CONTAMINATION.columns)
    if not stages:
        return None
    found = pl.concat([material.rows(stage).select(*CONTAMINATION.columns) for stage in stages]).collect()
    benchmarks = [
        {
            "benchmark": name,
            "items": items.height,
            "items_found": own["item_id"].n_unique(),
            "rows": own["of"].n_unique(),
            **{f"by_{measure}": own.filter(measure=measure)["of"].n_unique() for measure in ("ngrams", "jaccard")},
        }
        for stage in material.having(*ITEMS.columns)
        if (items := material.rows(stage).collect()).height
        for name in [items["benchmark"][0]]
        for own in [found.filter(benchmark=name)]
    ]
    clearest = found.sort("value", "benchmark", "item", "of", descending=[True, False, False, False]).head(SHOWN)
    dropped = sum(manifest.dropped_by.get("contaminated", 0) for manifest in material.manifests.values())
    examples = clearest.select(
        "benchmark", "item", "column", "measure", "value", pl.col("matched", "item_text").str.slice(0, CUT)
    )
    return {"benchmarks": benchmarks, "dropped": dropped, "examples": examples.to_dicts()}


def draw(data: Data) -> Iterator[Block]:
    """Show a line for each benchmark, and the clearest cases."""
    rows = sum(one["rows"] for one in data["benchmarks"])
    if rows and not data["dropped"]:
        yield Note(text="Rows that have an item of a benchmark are listed here and were not dropped.", warning=True)
    yield Table(
        title="Benchmarks that the release was compared with",
        headings=("benchmark", "items", "items found", "rows with an item", "by word runs", "as near-duplicate"),
        rows=[
            [one[name] for name in ("benchmark", "items", "items_found", "rows", "by_ngrams", "by_jaccard")]
            for one in data["benchmarks"]
        ],
    )
    if data["examples"]:
        yield Table(
            title="The clearest cases",
            headings=("benchmark", "item", "column", "measure", "value", "matched text", "text of the item"),
            rows=[
                [*list(one.values())[:4], rounded(one["value"]), *list(one.values())[5:]] for one in data["examples"]
            ],
            folded=True,
        )


SECTION = Section(name="contamination", title="Decontamination", collect=collect, draw=draw)

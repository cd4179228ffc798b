"""How far the judge's checks were from their threshold."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.report.blocks import Block, Note, Table
from normloom.report.material import Material
from normloom.report.plots import Series, histogram
from normloom.report.section import Data, Section
from normloom.report.sections.results.acceptance import JUDGED, VERDICTS

BINS = 40  # over [0, 1]


def collect(material: Material) -> Data | None:
    """Return a histogram of the margins of each verdict, and their medians."""
    judged = material.having(*JUDGED)
    if not judged:
        return None
    candidates = pl.concat([material.rows(stage).select("verdict", "margin") for stage in judged])
    margins = candidates.filter(pl.col("margin").is_finite())
    position = (pl.col("margin") * BINS).floor().cast(pl.Int32).clip(0, BINS - 1)
    counted = margins.group_by("verdict", position.alias("bin")).len().collect()
    medians = dict(margins.group_by("verdict").agg(pl.col("margin").median()).collect().iter_rows())
    counts = {verdict: [0] * BINS for verdict in VERDICTS}
    for verdict, number, rows in counted.iter_rows():
        counts[verdict][number] = rows
    return {
        "edges": [number / BINS for number in range(BINS + 1)],
        "counts": counts,
        "medians": {verdict: medians.get(verdict) for verdict in VERDICTS},
    }


def draw(data: Data) -> Iterator[Block]:
    """Show the histogram."""
    yield Note(text="The margin says how sure a verdict is. Selection keeps the candidate with the widest one.")
    series = [Series(name=verdict, values=counts) for verdict, counts in data["counts"].items()]
    yield histogram("Margins by verdict", data["edges"], series, axis="margin", counted="candidates")
    rows = [[verdict, sum(data["counts"][verdict]), median] for verdict, median in data["medians"].items()]
    yield Table(title="Medians", headings=("verdict", "candidates", "median margin"), rows=rows)


SECTION = Section(name="margins", title="Judge margins", collect=collect, draw=draw)

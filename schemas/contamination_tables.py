"""The tables of decontamination: the items of benchmarks, and where a release has them."""

from __future__ import annotations

import polars as pl

from normloom.core.contract import Contract
from normloom.schemas.tables import within

NGRAMS, JACCARD = "ngrams", "jaccard"

ITEMS = Contract(
    columns={"benchmark": pl.String(), "source_row": pl.Int64(), "text": pl.String()},
    keys=("source_row",),
)

CONTAMINATION = Contract(
    columns={
        "of": pl.String(),  # the row, by its id in the table that was searched
        "column": pl.String(),  # which of its texts
        "benchmark": pl.String(),
        "item": pl.Int64(),  # the record of the benchmark
        "item_id": pl.String(),  # its row in the table of the benchmark's items
        "measure": pl.String(),
        "value": pl.Float64(),  # share of the item's words in common runs, or Jaccard similarity of the shingles
        "matched": pl.String(),  # the longest common run as the row has it; of a near-duplicate the whole text
        "item_text": pl.String(),
    },
    keys=("of", "column", "item_id"),
    checks=(within("measure", NGRAMS, JACCARD),),
)

"""Sizes of the splits, and leakage across them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.report.blocks import Block, Table, Tiles, share
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section
from normloom.tasks.duplicates.split import SPLITS


def collect(material: Material) -> Data | None:
    """Return rows, prompts and clusters of each split, and the share of held-out prompts with a neighbour in train."""
    stages = material.having("prompt_id", "split", "cluster")
    if not stages:
        return None
    sizes = (
        material.rows(stages[-1])
        .group_by("split")
        .agg(
            pl.len().alias("rows"),
            pl.col("prompt_id").n_unique().alias("prompts"),
            pl.col("cluster").n_unique().alias("clusters"),
        )
    )
    known = {row["split"]: row for row in sizes.collect().iter_rows(named=True)}
    empty = {"rows": 0, "prompts": 0, "clusters": 0}
    manifest = material.manifests[stages[0]]
    metrics, arguments = manifest.metrics, manifest.key_fields["arguments"]
    return {
        "stage": stages[0],
        "splits": [{"split": split, **empty, **known.get(split, {})} for split in SPLITS],
        "shares": {split: arguments.get(split) for split in SPLITS},
        "leakage": metrics.get("leakage"),
        "largest_cluster": int(metrics.get("largest_cluster", 0)),
    }


def draw(data: Data) -> Iterator[Block]:
    """Show the sizes."""
    splits = data["splits"]
    yield Tiles(
        values={
            **{f"rows to {split['split']}": split["rows"] for split in splits},
            "leakage": share(data["leakage"]),
            "largest cluster": data["largest_cluster"],
        }
    )
    names = [split["split"] for split in splits]
    series = [Series(name=what, values=[split[what] for split in splits]) for what in ("rows", "prompts")]
    yield bars("Rows and prompts of each split", names, series, axis="", width="whole")
    total = sum(split["prompts"] for split in splits)
    rows = [
        [
            split["split"],
            split["rows"],
            split["prompts"],
            split["clusters"],
            _part(split["prompts"], total),
            share(asked),
        ]
        for split, asked in zip(splits, data["shares"].values(), strict=True)
    ]
    headings = ("split", "rows", "prompts", "clusters", "share of prompts", "asked for")
    yield Table(title="Splits; clusters of near-duplicates stay whole", headings=headings, rows=rows)


def _part(part: int, whole: int) -> str:
    return share(part / whole if whole else None)


SECTION = Section(name="splits", title="Splits and leakage", collect=collect, draw=draw)

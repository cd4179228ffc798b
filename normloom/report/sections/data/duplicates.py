"""Near-duplicates: what was removed, and how much of it chance alone would remove."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from normloom.core.table import Manifest
from normloom.report.blocks import Block, Note, Tiles, rounded, share
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section

CHANCE = "expected_chance_pairs"
TOLERATED = 0.01  # of the removals


def collect(material: Material) -> Data | None:
    """Return removals by reason and distance, and the chance pairs that as many random codes would have."""
    stages = [stage for stage, manifest in material.manifests.items() if CHANCE in manifest.metrics]
    if not stages:
        return None
    return {"stages": [_removals(material, stage) for stage in stages]}


def chance_warning(manifest: Manifest) -> str | None:
    """Return what to tell where chance pairs pass the tolerated share of a table's removals, None elsewhere."""
    if CHANCE not in manifest.metrics:
        return None
    counts = _counts(manifest)
    return _warning(counts) if counts["warning"] else None


def _removals(material: Material, stage: str) -> Data:
    counted = material.rows(stage).group_by("reason", "distance").len("rows").sort("reason", "distance").collect()
    by_reason = counted.group_by("reason", maintain_order=True).agg(pl.col("rows").sum()).sort("rows", descending=True)
    return {
        **_counts(material.manifests[stage]),
        "removed_by": dict(by_reason.iter_rows()),
        "distances": counted.to_dicts(),
    }


def _counts(manifest: Manifest) -> Data:
    arguments, removed = manifest.key_fields["arguments"], manifest.count("rows")
    chance = manifest.metrics[CHANCE]
    return {
        "stage": manifest.stage,
        "rows": manifest.rows_in,
        "removed": removed,
        "share": removed / manifest.rows_in if manifest.rows_in else None,
        "tau": arguments["tau"],
        "jaccard": arguments["jaccard"],
        "chance_pairs": chance,
        "warning": removed > 0 and chance > TOLERATED * removed,
    }


def draw(data: Data) -> Iterator[Block]:
    """Show the removals of each stage that removes near-duplicates."""
    for stage in data["stages"]:
        if stage["warning"]:
            yield Note(text=_warning(stage), warning=True)
        yield Tiles(
            values={
                f"rows into {stage['stage']}": stage["rows"],
                "removed": stage["removed"],
                "share removed": share(stage["share"]),
                f"chance pairs under {stage['tau']} bits": rounded(stage["chance_pairs"]),
                "confirmed by Jaccard from": stage["jaccard"] or "not confirmed",
            }
        )
        if stage["distances"]:
            yield _distances(stage)


def _warning(stage: Data) -> str:
    confirmed = (
        f"Each pair was confirmed by a Jaccard similarity of {stage['jaccard']:g} or more, which is not chance."
        if stage["jaccard"]
        else "No pair was confirmed by its Jaccard similarity, so some removals are by chance."
    )
    return (
        f"Random codes of {stage['rows']:,} rows alone would have about {rounded(stage['chance_pairs'])} pairs under "
        f"{stage['tau']} bits, more than {TOLERATED:.0%} of the {stage['removed']:,} removals. {confirmed}"
    )


def _distances(stage: Data) -> Block:
    furthest = max(stage["tau"], *(row["distance"] + 1 for row in stage["distances"]))
    counts = {(row["reason"], row["distance"]): row["rows"] for row in stage["distances"]}
    series = [
        Series(name=reason, values=[counts.get((reason, bits), 0) for bits in range(furthest)])
        for reason in stage["removed_by"]
    ]
    names = [str(bits) for bits in range(furthest)]
    return bars(
        f"{stage['stage']}: removed rows by distance in bits",
        names,
        series,
        axis="rows",
        stacked=True,
        vertical=True,
        width="whole",
    )


SECTION = Section(name="duplicates", title="Near-duplicates", collect=collect, draw=draw)

"""Rejection sampling: what the judge made of the candidates, by round, generator and label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import polars as pl

from normloom.report.blocks import Block, Note, Table, Width, share
from normloom.report.material import Material
from normloom.report.plots import Series, bars
from normloom.report.section import Data, Section
from normloom.schemas.taxonomy import DIMENSIONS

JUDGED = ("prompt_id", "generator", "round", "verdict", "reason", "margin")
VERDICTS = ("aligned", "misaligned", "discarded")


def collect(material: Material) -> Data | None:
    """Return counts of verdicts by round and generator, by label, and the reasons of what was discarded."""
    judged = material.having(*JUDGED)
    if not judged:
        return None
    candidates = pl.concat([material.rows(stage).select(JUDGED) for stage in judged])
    by_round = candidates.group_by("round", "generator", "verdict").len().collect()
    discarded = candidates.filter(verdict="discarded").group_by("reason").len().sort("len", descending=True).collect()
    return {
        "rounds": _counted(by_round, "round", "generator"),
        "reasons": dict(discarded.iter_rows()),
        "labels": _by_label(material, candidates),
    }


def _by_label(material: Material, candidates: pl.LazyFrame) -> list[dict[str, Any]]:
    """Count verdicts by the labels of the prompts, which are those that the deduplicated table has."""
    prompts = material.having("row_id", "labels", "fingerprint")
    if not prompts:
        return []
    verdicts = candidates.group_by("prompt_id", "verdict").len()
    labels = material.rows(prompts[0]).select(pl.col("row_id").alias("prompt_id"), "labels")
    labels = labels.explode("labels").unnest("labels").drop_nulls("label")
    joined = labels.join(verdicts, on="prompt_id").group_by("dimension", "label", "verdict").agg(pl.col("len").sum())
    return _counted(joined.collect(), "dimension", "label")


def _counted(counts: pl.DataFrame, *keys: str) -> list[dict[str, Any]]:
    """Return a row for each key with the number of each verdict, in the order of the keys."""
    found: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for *key, verdict, number in counts.select(*keys, "verdict", "len").iter_rows():
        found[*key][verdict] += number
    return [
        {**dict(zip(keys, key, strict=True)), **{verdict: found[key][verdict] for verdict in VERDICTS}}
        for key in sorted(found, key=lambda key: (_position(key[0]), key))
    ]


def _position(key: object) -> int:
    """Let dimensions come in the order that they have everywhere else."""
    return DIMENSIONS.index(key) if key in DIMENSIONS else len(DIMENSIONS)


def draw(data: Data) -> Iterator[Block]:
    """Show verdicts by round and generator, reasons, and a panel for each dimension's labels."""
    rounds = data["rounds"]
    yield Note(
        text="Candidates judged aligned or misaligned are accepted, the rest is discarded. Later rounds draw again "
        "what is missing, so they have the harder prompts."
    )
    names = [f"round {row['round']}, {row['generator']}" for row in rounds]
    yield _verdicts("Verdicts by round and generator", names, rounds, width="whole")
    yield Table(
        title="Acceptance",
        headings=("round", "generator", *VERDICTS, "accepted"),
        rows=[
            [*(row[name] for name in ("round", "generator", *VERDICTS)), share(1 - row["discarded"] / _total(row))]
            for row in rounds
        ],
    )
    if data["reasons"]:
        rows = list(data["reasons"].items())
        yield Table(title="Why candidates were discarded", headings=("reason", "candidates"), rows=rows)
    for dimension, group in groupby(data["labels"], key=lambda row: row["dimension"]):
        there = sorted(group, key=lambda row: row["discarded"] / _total(row))
        names = [row["label"].partition("/")[2] or row["label"] for row in there]
        yield _verdicts(f"{dimension}: verdicts by label", names, there)


def _verdicts(title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], *, width: Width = "third") -> Block:
    series = [
        Series(
            name=verdict,
            values=[row[verdict] / _total(row) for row in rows],
            notes=[f"{row[verdict]:,} of {_total(row):,} candidates" for row in rows],
        )
        for verdict in VERDICTS
    ]
    return bars(title, names, series, axis="share of the candidates", stacked=True, width=width)


def _total(row: Mapping[str, Any]) -> int:
    return sum(row[verdict] for verdict in VERDICTS)


SECTION = Section(name="acceptance", title="Rejection sampling", collect=collect, draw=draw)

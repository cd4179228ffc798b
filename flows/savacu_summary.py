"""What the summary of a SaVaCu build says beside rows and figures: labels, rejection sampling, the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from normloom.build import BuildResult
from normloom.store import Store

LABELS_NAMED = 4  # of those that missed their quota; the table has the rest


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return what a finished build of labelled prompts with aligned and misaligned responses shows."""
    shown: list[RenderableType] = [_acceptance(result, store), _data_set(result, store)]
    return [_labels(result, store), *shown] if any(one.stage == "classify" for one in result.manifests) else shown


def _labels(result: BuildResult, store: Store) -> RenderableType:
    labelled = (
        store.scan(result["classify"].ref).select("labels").explode("labels").unnest("labels").drop_nulls("label")
    )
    counts = labelled.group_by("dimension", maintain_order=True).agg(
        pl.len().alias("kept"), pl.col("label").n_unique().alias("labels")
    )
    dimensions = [taxonomy["dimension"] for taxonomy in result["classify"].key_fields["arguments"]["taxonomies"]]
    measured = _measures(result, store)
    table = Table(title=f"Labels ({_route(result)})", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("dimension", "kept", "distinct", "macro recall", "prior's", "measured on"):
        table.add_column(heading, justify="left" if heading == "dimension" else "right")
    for dimension, kept, distinct in sorted(counts.collect().iter_rows(), key=lambda row: dimensions.index(row[0])):
        recall = measured.get((dimension, "macro_recall"))
        figures = ["", "", "no reference labels"]
        if recall and recall["value"] is not None:
            figures = [f"{recall['value']:.2f}", f"{recall['prior']:.2f}", f"{recall['prompts']:,} prompts"]
        table.add_row(dimension, f"{kept:,}", str(distinct), *figures)
    return table


def _measures(result: BuildResult, store: Store) -> dict[tuple[str, str], dict[str, Any]]:
    if not any(manifest.stage == "agreement" for manifest in result.manifests):
        return {}
    rows = store.scan(result["agreement"].ref).collect().iter_rows(named=True)
    return {(row["dimension"], row["measure"]): row for row in rows}


def _route(result: BuildResult) -> str:
    fields = result["classify"].key_fields
    if fields["function"].endswith(":embed_labels"):
        how = "by embedding"
    elif any(manifest.stage == "shortlist" for manifest in result.manifests):
        how = f"by yes/no questions about {result['shortlist'].key_fields['arguments']['k']} a dimension"
    else:
        how = "by yes/no questions about all"
    return f"{how}, {fields['model']['model']}"


def _acceptance(result: BuildResult, store: Store) -> Table:
    table = Table(title="Rejection sampling", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("round")
    for heading in ("candidates", "aligned", "misaligned", "discarded", "accepted"):
        table.add_column(heading, justify="right")
    for manifest in result.manifests:
        if not manifest.stage.startswith("judge_"):
            continue
        rows = store.scan(manifest.ref).group_by("verdict").len().collect()
        verdicts: Mapping[str, int] = dict(rows.iter_rows())
        total = sum(verdicts.values())
        good = verdicts.get("aligned", 0) + verdicts.get("misaligned", 0)
        table.add_row(
            manifest.stage.removeprefix("judge_"),
            f"{total:,}",
            *(f"{verdicts.get(verdict, 0):,}" for verdict in ("aligned", "misaligned", "discarded")),
            f"{good / total:.0%}" if total else "-",
        )
    return table


def _data_set(result: BuildResult, store: Store) -> Group:
    published = store.scan(result["publish"].ref)
    splits = dict(published.group_by("split").len().collect().iter_rows())
    missing = store.scan(result["coverage"].ref).filter(pl.col("missing") > 0).collect()
    lines = [
        Text.assemble(
            ("Data set: ", "bold"),
            f"{result['publish'].count('rows'):,} responses, "
            f"{int(result['select'].metrics.get('pairs', 0)):,} aligned/misaligned pairs; "
            + ", ".join(f"{name} {splits.get(name, 0):,}" for name in ("train", "validation", "test")),
        )
    ]
    leakage = result["split"].metrics.get("leakage")
    if leakage is not None:
        lines.append(Text(f"Leakage across splits: {leakage:.1%} of held-out prompts have a near neighbour in train."))
    if missing.height:
        named = missing["label"][:LABELS_NAMED]
        names = ", ".join(label.partition("/")[2] for label in named)
        more = f" and {missing.height - len(named)} more" if missing.height > len(named) else ""
        lines.append(
            Text(f"Quotas missed by {missing.height} labels: {names}{more} (view {result.system}_coverage).", "yellow")
        )
    return Group(*lines, Text())

"""What the summary of a SaVaCu build says besides rows and figures: labels, rejection sampling, the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from normloom.core.rows.text import counted
from normloom.core.table import Manifest
from normloom.schemas.tables import AGREEMENT, CALIBRATION, COVERAGE
from normloom.schemas.taxonomy import DIMENSIONS
from normloom.store.store import Store
from normloom.tasks.duplicates.split import SPLITS
from normloom.tasks.metrics.figure import FEWEST

if TYPE_CHECKING:
    from normloom.run.build import BuildResult

LABELS_NAMED = 4  # of those that missed their quota; the table has the rest
LABELLED = ("labels", "probabilities")  # columns of the table that labels prompts, and of none before it
QUALITY = (
    "Precision: of the labels kept, which are released. Recall: of the source's reference labels. Top-1: the "
    f"likeliest label of prompts with a reference, kept or not. Fewer than {FEWEST} have no figure."
)
TOPIC = "A label names a topic; it does not say that a prompt is harmful."
READ = "A prompt in a language that the encoder does not read gets no label."
JUDGED = ("round", "verdict", "margin")


def sections(result: BuildResult, store: Store) -> list[RenderableType]:
    """Return what a finished build of labelled prompts with aligned and misaligned responses shows."""
    shown: list[RenderableType] = [_acceptance(result, store), _data_set(result, store)]
    return [*(_labels(labelled, result, store) for labelled in _labelled(result)), *shown]


def _having(result: BuildResult, *columns: str) -> list[Manifest]:
    """Return the tables of the build with all these columns, in the order of the flow."""
    return [one for one in result.manifests if set(columns) <= one.key_fields["contract"]["columns"].keys()]


def _labelled(result: BuildResult) -> list[Manifest]:
    """Return the table that this build gave labels in: it has them, and no table that it reads does."""
    having = _having(result, *LABELLED)
    keys = {manifest.key for manifest in (*having, *result.reads.values())}
    return [one for one in having if keys.isdisjoint(ref.key for ref in (*one.inputs, *one.sides))]


def _labels(labelled_table: Manifest, result: BuildResult, store: Store) -> RenderableType:
    labelled = store.scan(labelled_table.ref).select("labels").explode("labels").unnest("labels").drop_nulls("label")
    kept = dict(labelled.group_by("dimension").len().collect().iter_rows())
    measured = _measures(result, store)
    title = f"Labels ({_route(labelled_table, result)})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("dimension")
    for heading in (
        "kept",
        *(("precision", "95 %", "reference", "recall", "95 %", "top-1", "prompts") * bool(measured)),
    ):
        table.add_column(heading, justify="right")
    for dimension in [name for name in DIMENSIONS if name in kept or (name, "recall") in measured]:
        table.add_row(dimension, f"{kept.get(dimension, 0):,}", *(_quality(dimension, measured) if measured else ()))
    said = [QUALITY if measured else "The source has no reference labels to measure these by.", TOPIC]
    table.caption = " ".join([*said, READ] if _having(result, *CALIBRATION.columns) else said) + "\n"
    table.caption_justify = "left"
    return table


def _quality(dimension: str, measured: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Yield the cells of a dimension: precision, recall and top-1 with what they rest on; kept labels are before."""
    precision, recall, top1 = (measured[dimension, measure] for measure in ("precision", "recall", "top1"))
    yield from (_value(precision), _interval(precision))
    yield from (f"{recall['rows']:,}", _value(recall), _interval(recall))
    yield from (_value(top1), f"{top1['rows']:,}")


def _value(figure: Mapping[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.2f}"


def _interval(figure: Mapping[str, Any]) -> str:
    return "" if figure["low"] is None else f"{figure['low']:.2f}-{figure['high']:.2f}"


def _measures(result: BuildResult, store: Store) -> dict[tuple[str, str], dict[str, Any]]:
    tables = [store.scan(manifest.ref).collect() for manifest in _having(result, *AGREEMENT.columns)]
    return {(row["dimension"], row["measure"]): row for rows in tables for row in rows.iter_rows(named=True)}


def _route(labelled: Manifest, result: BuildResult) -> str:
    """Say how prompts were labelled, and by which model: the nearest that the table of labels was made with."""
    shortlisted = _having(result, "shortlist")
    if _having(result, *CALIBRATION.columns):
        how = "by embedding"
    elif shortlisted:
        how = f"by yes/no questions about {shortlisted[0].key_fields['arguments']['shortlist']} a dimension"
    else:
        how = "by yes/no questions about all"
    tables = {manifest.stage: manifest for manifest in result.manifests}
    behind = [labelled.stage]
    for stage in behind:  # grows as it is walked
        reads = [ref.stage for ref in (*tables[stage].sides, *tables[stage].inputs)]
        behind += [one for one in dict.fromkeys(reads) if one in tables and one not in behind]
    models = [model["model"] for stage in behind if (model := tables[stage].key_fields["model"])]
    return ", ".join([how, *models[:1]])


def _acceptance(result: BuildResult, store: Store) -> Table:
    table = Table(title="Rejection sampling", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("round")
    for heading in ("candidates", "aligned", "misaligned", "discarded", "accepted"):
        table.add_column(heading, justify="right")
    judged = [store.scan(manifest.ref).select("round", "verdict") for manifest in _having(result, *JUDGED)]
    counts = pl.concat(judged).group_by("round", "verdict").len().sort("round").collect() if judged else pl.DataFrame()
    for (round_,), rows in counts.group_by("round", maintain_order=True) if judged else ():
        verdicts: Mapping[str, int] = dict(rows.select("verdict", "len").iter_rows())
        total = sum(verdicts.values())
        good = verdicts.get("aligned", 0) + verdicts.get("misaligned", 0)
        table.add_row(
            str(round_),
            f"{total:,}",
            *(f"{verdicts.get(verdict, 0):,}" for verdict in ("aligned", "misaligned", "discarded")),
            f"{good / total:.0%}",
        )
    return table


def _data_set(result: BuildResult, store: Store) -> Group:
    published = store.scan(result.released.ref)
    splits = dict(published.group_by("split").len().collect().iter_rows())
    pairs = sum(int(manifest.metrics.get("pairs", 0)) for manifest in result.manifests)
    missed = [
        (manifest, row["label"])
        for manifest in _having(result, *COVERAGE.columns)
        for row in store.scan(manifest.ref).filter(pl.col("missing") > 0).collect().iter_rows(named=True)
    ]
    lines = [
        Text.assemble(
            ("Data set: ", "bold"),
            f"{counted(result.released.count('rows'), 'response')}, {counted(pairs, 'aligned/misaligned pair')}; "
            + ", ".join(f"{name} {splits.get(name, 0):,}" for name in SPLITS),
        )
    ]
    leakages = [one.metrics["leakage"] for one in result.manifests if "leakage" in one.metrics]
    lines += [
        Text(f"Leakage across splits: {leakage:.1%} of held-out prompts have a near neighbour in train.")
        for leakage in leakages
    ]
    if missed:
        names = ", ".join(label.partition("/")[2] for _, label in missed[:LABELS_NAMED])
        more = f" and {len(missed) - LABELS_NAMED} more" if len(missed) > LABELS_NAMED else ""
        view = f"{result.system}_{missed[0][0].stage}"
        lines.append(Text(f"Quotas missed by {len(missed)} labels: {names}{more} (view {view}).", "yellow"))
    return Group(*lines, Text())

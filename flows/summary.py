"""What a finished build says: as one JSON object for scripts, and as a page that a person enjoys reading."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from normloom.build import BuildResult
from normloom.store import Store
from normloom.table import Manifest, Work

LABELS_NAMED = 4  # of those that missed their quota; the table has the rest
MINUTE = 60


def as_json(result: BuildResult, store: Store) -> dict[str, Any]:
    """Return the build as the object that `--json` prints."""
    return {
        "system": result.system,
        "build": result.build,
        "seconds": round(result.seconds, 3),
        "output": None if result.partial else str(store.table_directory(result["publish"].ref)),
        "stale": dict(result.stale),
        "lock": str(result.lock),
        "loads": dict(result.loads),
        "stages": [_stage(manifest, reused=manifest.stage in result.reused) for manifest in result.manifests],
    }


def _stage(manifest: Manifest, *, reused: bool) -> dict[str, Any]:
    return {
        "name": manifest.stage,
        "key": manifest.key,
        "reused": reused,
        "rows_in": manifest.rows_in,
        "attempts": manifest.attempts,
        "rows_out": manifest.count("rows"),
        "dropped": manifest.count("dropped"),
        "quarantined": manifest.count("quarantined"),
        "seconds": round(manifest.seconds, 3),
        "tokens_in": manifest.tokens_in,
        "tokens_out": manifest.tokens_out,
        "metrics": dict(manifest.metrics),
        "work": None if reused or manifest.work is None else _work(manifest.work, manifest.load_seconds),
        "warnings": [f"{check.name}: {check.detail}" for check in manifest.checks if not check.passed],
    }


def _work(work: Work, load_seconds: float) -> dict[str, Any]:
    rates = {"tokens_in_per_second": work.tokens_in_per_second, "tokens_out_per_second": work.tokens_out_per_second}
    return {
        **work.model_dump(mode="json"),
        **{name: round(rate, 3) for name, rate in rates.items()},
        "occupancy": work.occupancy,
        "cached": work.cached,
        "load_seconds": round(load_seconds, 3),
    }


def show(console: Console, result: BuildResult, store: Store, *, title: str, profile: str) -> None:
    """Print the summary of a build."""
    console.print()
    console.rule(f"[bold]{title}[/] · build {result.build} · profile {escape(profile)} · {_duration(result.seconds)}")
    console.print(_stages(result))
    if len(result.reused) == len(result.manifests):
        console.print("[green]Nothing to do:[/] every table is up to date.\n")
    if result.partial:
        console.print(_left(result))
        return
    for section in (_labels(result, store), _acceptance(result, store), _data_set(result, store)):
        console.print(section)
    console.print(Panel(_closing(result, store), title="Where it is, what next", title_align="left", box=box.ROUNDED))


def _left(result: BuildResult) -> Text:
    """Say what a partial build leaves behind."""
    if not result.stale:
        return Text("No table is stale.")
    lines = [f"  {stage:<22} {why}" for stage, why in result.stale.items()]
    return Text.assemble(
        ("Stale until they are rebuilt\n", "bold yellow"),
        "\n".join(lines),
        ("\n\nThe same command without --only and --from rebuilds them.", "cyan"),
    )


def _stages(result: BuildResult) -> Table:
    table = Table(title="Rows per stage", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for heading in ("in", "tried", "out", "dropped", "aside", "tokens in", "out", "time"):
        table.add_column(heading, justify="right")
    for manifest in result.manifests:
        reused = manifest.stage in result.reused
        table.add_row(
            manifest.stage,
            *(_number(count) for count in (manifest.rows_in, manifest.attempts)),
            f"[bold]{manifest.count('rows'):,}",
            _number(manifest.count("dropped")),
            _number(manifest.count("quarantined")),
            _number(manifest.tokens_in),
            _number(manifest.tokens_out),
            "[dim]reused" if reused else _duration(manifest.seconds),
        )
    return table


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
    for manifest in result.manifests:
        if manifest.count("quarantined"):
            rules = ", ".join(f"{rule} {count}" for rule, count in manifest.quarantined_by.items())
            lines.append(
                Text(
                    f"Quarantine of {manifest.stage}: {rules} (view {result.system}_{manifest.stage}_quarantined).",
                    "yellow",
                )
            )
    return Group(*lines, Text())


def _closing(result: BuildResult, store: Store) -> Text:
    directory = store.table_directory(result["publish"].ref)
    tokens = sum(manifest.tokens_out for manifest in result.manifests if manifest.stage not in result.reused)
    loads = ", ".join(f"{model} {count}x{_loading(result, model)}" for model, count in result.loads.items()) or "none"
    text = Text.assemble(
        ("Released rows  ", "bold"),
        f"{directory}/rows-*.parquet\n",
        ("Lock           ", "bold"),
        f"{result.lock}\n",
        ("Model loads    ", "bold"),
        f"{loads}; {tokens:,} tokens written\n",
    )
    if any("135M" in str(manifest.key_fields.get("model")) for manifest in result.manifests):
        text.append(
            "A 135M model wrote and judged these responses: its verdicts are near chance. "
            "This build proves the pipeline; for data to train on, use a profile with larger models.\n",
            "italic",
        )
    option = "" if store.root == Path("store").absolute() else f" --store {shlex.quote(str(store.root))}"
    text.append("\nnormloom tables savacu" + option + "\n", "cyan")
    sql = f"FROM {result.system}_publish SELECT prompt, response, alignment LIMIT 5"
    text.append(f'normloom query "{sql}"{option}', "cyan")
    return text


def _loading(result: BuildResult, model: str) -> str:
    """Say what loading a model took: seconds of actors, which load side by side."""
    made = [manifest for manifest in result.manifests if manifest.stage not in result.reused]
    mine = [manifest for manifest in made if (manifest.key_fields["model"] or {}).get("model") == model]
    actors = sum(manifest.work.loads for manifest in mine if manifest.work)
    seconds = sum(manifest.load_seconds for manifest in mine)
    return f" ({actors} actors, {_duration(seconds / actors)} each)" if actors else ""


def _number(value: int) -> str:
    return f"{value:,}" if value else "[dim]-"


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds // MINUTE)} min {int(seconds % MINUTE):02d} s"
